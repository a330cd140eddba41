// Does one call after another with @a2a-js/sdk, and writes what came of each, in the JSON form of A2A.
//
// A call is { method, params }. A part of `params` that is "$a.b.0" is taken from the results so far: result a, its field b,
// its first item. A stream may have `touch`, a file that is made when an artifact begins, and `leave`, the number of its
// events after which the client hangs up. `until` repeats a call until the state of its task is this one.
import * as sdk from '@a2a-js/sdk';
import { ClientFactory, ClientFactoryOptions, JsonRpcTransportFactory, RestTransportFactory } from '@a2a-js/sdk/client';
import { closeSync, openSync } from 'node:fs';

const { url, binding, headers, calls } = JSON.parse(process.argv[2]);
const REQUESTS = {
  sendMessage: sdk.SendMessageRequest,
  sendMessageStream: sdk.SendMessageRequest,
  getTask: sdk.GetTaskRequest,
  listTasks: sdk.ListTasksRequest,
  cancelTask: sdk.CancelTaskRequest,
  resubscribeTask: sdk.SubscribeToTaskRequest,
  createTaskPushNotificationConfig: sdk.TaskPushNotificationConfig,
  getTaskPushNotificationConfig: sdk.GetTaskPushNotificationConfigRequest,
  listTaskPushNotificationConfig: sdk.ListTaskPushNotificationConfigsRequest,
  deleteTaskPushNotificationConfig: sdk.DeleteTaskPushNotificationConfigRequest,
};
const STREAMS = new Set(['sendMessageStream', 'resubscribeTask']);

const withHeaders = (target, init) => {
  const all = new Headers(init?.headers);
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  return fetch(target, { ...init, headers: all });
};

const factory = new ClientFactory(
  ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
    transports: [
      new JsonRpcTransportFactory({ fetchImpl: withHeaders }),
      new RestTransportFactory({ fetchImpl: withHeaders }),
    ],
    preferredTransports: [binding],
  }),
);
const client = await factory.createFromUrl(url);

const results = [];

function filled(value) {
  if (typeof value === 'string' && value.startsWith('$')) {
    return value
      .slice(1)
      .split('.')
      .reduce((found, name) => found[name], results);
  }
  if (Array.isArray(value)) return value.map(filled);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filled(each)]));
}

function shown(value) {
  if (value === undefined) return null;
  if (value.tasks) return sdk.ListTasksResponse.toJSON(value);
  if (value.configs) return sdk.ListTaskPushNotificationConfigsResponse.toJSON(value);
  if (value.url !== undefined) return sdk.TaskPushNotificationConfig.toJSON(value);
  if (value.messageId) return sdk.Message.toJSON(value);
  return sdk.Task.toJSON(value);
}

async function stream({ method, params, touch, leave }) {
  const events = [];
  for await (const event of client[method](params)) {
    events.push(sdk.StreamResponse.toJSON(event));
    if (touch && events.at(-1).artifactUpdate) closeSync(openSync(touch, 'w'));
    if (events.length === leave) break;
  }
  return events;
}

async function done(call) {
  const params = REQUESTS[call.method].fromJSON(filled(call.params));
  if (STREAMS.has(call.method)) return await stream({ ...call, params });
  for (;;) {
    const result = shown(await client[call.method](params));
    if (!call.until || result.status.state === call.until) return result;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const call of calls) {
  try {
    results.push(await done(call));
  } catch (error) {
    results.push({ error: error.constructor.name, name: error.name, message: error.message, code: error.code ?? null });
  }
}
process.stdout.write(JSON.stringify(results), () => process.exit(0));
