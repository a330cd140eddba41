// What can be done with a whole conversation: save it as a file, and delete it.

import { useRef } from "preact/hooks";

export function ThreadTools({ session, title }) {
  const dialog = useRef();
  const { operator, threadId } = session;
  const remove = () => {
    dialog.current.close();
    void operator.deleteThread(threadId);
  };
  return (
    <div class="tools">
      <button type="button" onClick={() => operator.exportThread(threadId)}>Export</button>
      <button type="button" onClick={() => dialog.current.showModal()}>Delete</button>
      <dialog ref={dialog} aria-labelledby="delete-title">
        <h3 id="delete-title">Delete “{title}”?</h3>
        <p>The events, runs and ratings of this conversation are removed from the store. This cannot be undone.</p>
        <div class="actions">
          <button type="button" onClick={remove}>Delete the conversation</button>
          <button type="button" onClick={() => dialog.current.close()}>Keep it</button>
        </div>
      </dialog>
    </div>
  );
}
