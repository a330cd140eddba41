// A page in React with `useChat`, which a test opens and uses as a person does: `openChat(id)`. `answers` counts the
// answers that have ended.

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { createElement as e, useMemo, useRef } from "react";
import { createRoot } from "react-dom/client";

const api = "/ai-sdk/chat";
const headers = { "x-tool-approvals": "true" };

function Part({ part, answer }) {
  if (part.type === "text") return e("span", { className: "seen" }, part.text);
  if (part.type === "reasoning") return e("i", { className: "seen" }, part.text);
  if (part.type === "file") return e("a", { className: "seen", href: part.url }, part.filename);
  if (part.type !== "dynamic-tool") return null;
  const button = (label, approved) =>
    e("button", { onClick: () => answer({ id: part.approval.id, approved }) }, label);
  const buttons = part.state === "approval-requested" ? [button("Approve", true), button("Deny", false)] : [];
  const asks = part.input?.text ? `: ${part.input.text}` : "";
  return e("div", null, e("b", { className: "seen" }, `${part.toolName} ${part.state}${asks}`), ...buttons);
}

function Page({ id, loaded }) {
  const text = useRef();
  const files = useRef();
  const transport = useMemo(() => new DefaultChatTransport({ api, headers }), []);
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
  const onFinish = () => (window.answers += 1);
  const chat = useChat({ id, messages: loaded, resume: true, transport, sendAutomaticallyWhen, onFinish });
  const written = () => ({ text: text.current.value, ...(files.current.files.length && { files: files.current.files }) });
  const message = ({ id, role, parts }) =>
    e("article", { key: id, "data-role": role },
      ...parts.map((part, index) => e(Part, { key: index, part, answer: chat.addToolApprovalResponse })),
      role === "user" && e("button", { onClick: () => chat.sendMessage({ ...written(), messageId: id }) }, "Edit"));
  return e("main", null,
    ...chat.messages.map(message),
    e("input", { id: "text", ref: text }),
    e("input", { id: "files", type: "file", ref: files }),
    e("button", { onClick: () => chat.sendMessage(written()) }, "Send"),
    e("button", { onClick: () => chat.regenerate() }, "Regenerate"),
    e("output", null, chat.status),
    e("pre", null, chat.error?.message));
}

window.answers = 0;
window.openChat = async (id) => {
  const loaded = await (await fetch(`${api}/${id}/messages`, { headers })).json();
  createRoot(document.body.appendChild(document.createElement("div"))).render(e(Page, { id, loaded }));
};
