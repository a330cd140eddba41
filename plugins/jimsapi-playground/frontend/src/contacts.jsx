// The contacts that have conversations. An operator goes on to the conversations of one, or to its runs.

import { counted } from "./words.js";

export function Contacts({ session }) {
  const { operator } = session;
  const { contacts } = operator;
  return (
    <div class="conversation" role="region" aria-label="Contacts" tabIndex={0}>
      {operator.needsContact && (
        <p class="note">
          This server admits every caller, so it lists one contact only. To see another, write its name in the field
          “Contact” above the conversations, and press Enter. A server with a key, as of --api-key, lists all contacts.
        </p>
      )}
      {contacts.problem && <p class="problem" role="alert">{contacts.problem}</p>}
      <ol class="rows" aria-label="Contacts" aria-busy={contacts.isReading}>
        {contacts.items.map((contact) => <Contact key={contact.contact_id} session={session} contact={contact} />)}
      </ol>
      {!contacts.items.length && !contacts.next && !contacts.isReading && !contacts.problem && (
        <p class="note">There are no contacts yet.</p>
      )}
      {contacts.next && (
        <button type="button" disabled={contacts.isReading} onClick={() => operator.more(contacts)}>More contacts</button>
      )}
    </div>
  );
}

function Contact({ session, contact: { contact_id: name, thread_count: count, active_at: at } }) {
  return (
    <li>
      <p class="step plain">{name || "the contact without a name"}</p>
      <p class="facts">
        {counted(count, "conversation")}
        {at && `, the newest event ${new Date(at).toLocaleString()}`}
      </p>
      <div class="tools">
        {!session.isBound && <button type="button" onClick={() => session.useContact(name)}>Conversations</button>}
        <button type="button" onClick={() => session.showRunsOf(name)}>Runs</button>
      </div>
    </li>
  );
}
