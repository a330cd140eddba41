// An open question of the pipeline, with the fields that its answer needs.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { focusMessage, focusQuestion } from "./focus.js";
import { enteredIn, formOf, initialOf, isLeftOut, valueOf } from "./form.js";
import { Markdown } from "./markdown.jsx";
import { takesText, textOf } from "./turns.js";

export function Question({ session, question, isFirst }) {
  const section = useRef();
  useLayoutEffect(() => {
    if (isFirst) focusQuestion(section.current, takesText(question));
  }, []);
  const answer = (value) => {
    void session.answer(question, value, textOf(value));
    focusMessage();
  };
  const name = `question-${question.question_id}`;
  return (
    <section class="question" ref={section} aria-labelledby={name} tabIndex={-1}>
      <div id={name}><Markdown text={textOf(question.text)} /></div>
      {question.expires_at && <p class="note">Until {new Date(question.expires_at).toLocaleString()}</p>}
      {Array.isArray(question.options) ? (
        <div class="choices">
          {question.options.map((option) => (
            <button key={option} type="button" onClick={() => answer(option)}>{option}</button>
          ))}
        </div>
      ) : (
        <AnswerForm session={session} name={name} question={question} onAnswer={answer} />
      )}
    </section>
  );
}

// What was entered is kept in the session: an answer that the server does not accept is not lost.
function AnswerForm({ session: { entered }, name, question, onAnswer }) {
  const form = useMemo(() => formOf(question.schema), [question.question_id]);
  const [values, setValues] = useState(entered.get(question.question_id) ?? {});
  const [problem, setProblem] = useState(null); // an error, with its field
  const place = useRef();
  useLayoutEffect(() => place.current.querySelector("[aria-invalid]")?.focus(), [problem]);
  const submit = (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      onAnswer(valueOf(form, values));
    } catch (error) {
      setProblem(error);
    }
  };
  const set = (changed) => {
    entered.set(question.question_id, changed);
    setValues(changed);
  };
  return (
    <form ref={place} onSubmit={submit}>
      {form.description && <p class="note">{form.description}</p>}
      {problem && <p class="problem" role="alert" id={`${name}-problem`}>{problem.message}</p>}
      <Fields
        fields={form.fields} name={name} values={values} onChange={set}
        invalid={problem?.field} problemId={`${name}-problem`}
      />
      <button class="primary">Answer</button>
    </form>
  );
}

// A group has no JSON, so no field in it is invalid.
function Fields({ fields, name, values, onChange, invalid, problemId, isOptional = false }) {
  return fields.map((field, index) => {
    const id = `${name}-${index}`;
    const value = enteredIn(values, field);
    const set = (changed) => onChange({ ...values, [field.name]: changed });
    if (field.kind !== "group") {
      return (
        <Field
          key={id} id={id} field={field} value={value ?? initialOf(field)} onChange={set} isOptional={isOptional}
          problemId={field === invalid ? problemId : null}
        />
      );
    }
    return (
      <fieldset key={id} aria-describedby={field.description ? `${id}-note` : undefined}>
        <legend>{labelOf(field, isOptional)}</legend>
        {field.description && <p class="note" id={`${id}-note`}>{field.description}</p>}
        <Fields fields={field.fields} name={id} values={value ?? {}} onChange={set} isOptional={isLeftOut(field, value)} />
      </fieldset>
    );
  });
}

function Field({ id, field, value, onChange, isOptional, problemId }) {
  const { kind, label, description, shape, choices } = field;
  const isRequired = field.isRequired && !isOptional;
  const text = ({ currentTarget }) => onChange(currentTarget.value);
  const note = [description, shape && `JSON: ${shape}`].filter(Boolean).join(" ");
  const described = [problemId, note && `${id}-note`].filter(Boolean).join(" ") || undefined;
  const invalid = problemId ? "true" : undefined;
  const control = { id, required: isRequired, value, "aria-describedby": described, "aria-invalid": invalid };
  return (
    <div class="field">
      {kind === "boolean" ? (
        <label class="check">
          <input
            type="checkbox" checked={value} aria-describedby={described}
            onChange={({ currentTarget }) => onChange(currentTarget.checked)}
          />
          {label}
        </label>
      ) : (
        <label for={id}>{labelOf(field, isOptional)}</label>
      )}
      {kind === "choice" && (
        <select {...control} onChange={text}>
          <option value="" />
          {choices.map((choice) => <option key={choice} value={String(choice)}>{nameOfChoice(choice)}</option>)}
        </select>
      )}
      {kind === "json" && <textarea {...control} rows="4" onInput={text} />}
      {kind === "string" && <input {...control} type="text" onInput={text} />}
      {(kind === "integer" || kind === "number") && (
        <input {...control} type="number" step={kind === "integer" ? "1" : "any"} onInput={text} />
      )}
      {note && <p class="note" id={`${id}-note`}>{note}</p>}
    </div>
  );
}

function nameOfChoice(choice) {
  if (typeof choice === "boolean") return choice ? "yes" : "no";
  return String(choice);
}

function labelOf({ label, isMarked }, isOptional) {
  return isMarked && !isOptional ? `${label} (required)` : label;
}
