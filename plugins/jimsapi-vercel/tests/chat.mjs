// A chat as `useChat` holds it, without React around it: the SDK's own logic and transport.

export async function openChat(scenario, id = scenario.id) {
  const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } = await import(
    scenario.sdk
  );

  class State {
    status = "ready";
    error = undefined;
    messages = [];
    pushMessage = (message) => this.messages.push(message);
    popMessage = () => this.messages.pop();
    replaceMessage = (place, message) => (this.messages[place] = this.snapshot(message));
    snapshot = (thing) => structuredClone(thing);
  }

  class Chat extends AbstractChat {
    data = [];
    finished = [];
    constructor() {
      super({
        id,
        state: new State(),
        transport: new DefaultChatTransport({ api: scenario.api, headers: scenario.headers }),
        sendAutomaticallyWhen: scenario.approves ? lastAssistantMessageIsCompleteWithApprovalResponses : undefined,
        onData: (part) => {
          this.data.push(part);
          this.heard?.(part);
        },
        onFinish: ({ isAbort, isDisconnect, isError }) => {
          this.finished.push({ isAbort, isDisconnect, isError });
          this.answered?.();
        },
      });
    }
    told() {
      const { status, error, messages, data, finished } = this;
      return { status, error: error?.message ?? null, messages, data, finished };
    }
  }

  return new Chat();
}

export const scenario = JSON.parse(process.argv[2]);
