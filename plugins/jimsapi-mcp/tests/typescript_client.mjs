// MCP's own clients for TypeScript, as a program that performs a scenario: see `mcp_clients.py`.

const scenario = JSON.parse(process.argv[2]);
const CALLBACK = "http://127.0.0.1:9/callback";
const legacySdk = scenario.package === "@modelcontextprotocol/sdk";
const { Client, StreamableHTTPClientTransport, UnauthorizedError, elicitation } = await load();

async function load() {
  if (!legacySdk) return { ...(await import("@modelcontextprotocol/client")), elicitation: "elicitation/create" };
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const { UnauthorizedError } = await import("@modelcontextprotocol/sdk/client/auth.js");
  const { ElicitRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
  return { Client, StreamableHTTPClientTransport, UnauthorizedError, elicitation: ElicitRequestSchema };
}

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

// Signs a person in, who agrees to everything. What the client gets is kept in memory.
class Browser {
  redirectUrl = CALLBACK;
  clientMetadata = {
    client_name: "A client of the tests",
    redirect_uris: [CALLBACK],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
  clientInformation = () => this.registration;
  saveClientInformation = (registration) => { this.registration = registration; };
  tokens = () => this.kept;
  saveTokens = (tokens) => { this.kept = tokens; };
  codeVerifier = () => this.verifier;
  saveCodeVerifier = (verifier) => { this.verifier = verifier; };
  discoveryState = () => this.discovered;
  saveDiscoveryState = (discovered) => { this.discovered = discovered; };
  state = () => "the-state";
  async redirectToAuthorization(url) {
    const answer = await fetch(url, { redirect: "manual" });
    this.callback = new URL(answer.headers.get("location")).searchParams;
    if (this.callback.get("state") !== "the-state") throw new Error("another state came back");
  }
}

function create() {
  const capabilities = scenario.answers === null ? {} : { elicitation: {} };
  const versionNegotiation = scenario.era === "legacy" ? undefined : { mode: "auto" };
  const client = new Client({ name: "tests", version: "1" }, { capabilities, versionNegotiation });
  if (scenario.answers !== null) {
    const answers = [...scenario.answers];
    client.setRequestHandler(elicitation, ({ params }) => {
      tell({ asked: { message: params.message, requestedSchema: params.requestedSchema } });
      const answer = answers.shift();
      return answer === null ? new Promise(() => {}) : answer; // null: it never comes
    });
  }
  return client;
}

async function connect() {
  const authProvider = scenario.sign_in ? new Browser() : undefined;
  const requestInit = { headers: scenario.headers };
  for (let visits = 0; ; visits++) {
    const client = create();
    const transport = new StreamableHTTPClientTransport(new URL(scenario.url), { authProvider, requestInit });
    try {
      await client.connect(transport);
      return [client, transport];
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || !authProvider || visits === 2) throw error;
      await transport.finishAuth(legacySdk ? authProvider.callback.get("code") : authProvider.callback);
    }
  }
}

async function call(client, step) {
  const heard = [];
  const leaving = new AbortController();
  const onprogress = ({ progress, message }) => {
    heard.push({ progress, message: message ?? null });
    tell({ progress: heard.at(-1) });
    if (message !== undefined && message === step.cancel_at) leaving.abort();
  };
  const options = { signal: leaving.signal, ...(step.progress ? { onprogress, resetTimeoutOnProgress: true } : {}) };
  const params = { name: step.call, arguments: step.arguments };
  try {
    const result = await (legacySdk ? client.callTool(params, undefined, options) : client.callTool(params, options));
    return { progress: heard, result };
  } catch (error) {
    if (leaving.signal.aborted) return { progress: heard, cancelled: true };
    return { progress: heard, error: { code: error.code, message: error.message } };
  }
}

// A step with the values of an earlier result in place of `$run_id` and the like.
function filled(step) {
  return JSON.parse(JSON.stringify(step).replace(/\$(run_id|thread_id|question_id|uri)/g, (_, name) => known[name] ?? ""));
}

async function perform(client, step) {
  if (step.call !== undefined) return call(client, step);
  if (step.read !== undefined) {
    try {
      return await client.readResource({ uri: step.read });
    } catch (error) {
      return { error: { code: error.code, message: error.message } };
    }
  }
  if (step.list === "tools") return client.listTools();
  if (step.list === "resources") return client.listResources();
  return client.listResourceTemplates();
}

const [client, transport] = await connect();
const version = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null;
const server = client.getServerVersion()?.name ?? null;
tell({ connected: { version, server, instructions: client.getInstructions() ?? null } });
let known = {};
for (const step of scenario.steps) {
  const result = await perform(client, filled(step));
  const structured = result.result?.structuredContent;
  known = { ...known, ...structured, ...structured?.questions?.[0], ...structured?.files?.[0] };
  tell({ step: result });
}
await client.close();
