// An open question of the pipeline, with the fields that its answer needs.

import { useState } from "preact/hooks";
import { focusMessage } from "./focus.js";
import { Markdown } from "./markdown.jsx";
import { isObject, textOf } from "./turns.js";

export function Question({ session, question }) {
  const answer = (value) => {
    void session.answer(question, value, textOf(value));
    focusMessage();
  };
  const name = `question-${question.question_id}`;
  return (
    <section class="question" aria-labelledby={name}>
      <div id={name}><Markdown text={String(question.text)} /></div>
      {question.expires_at && <p class="note">Until {new Date(question.expires_at).toLocaleString()}</p>}
      {Array.isArray(question.options) ? (
        <div class="choices">
          {question.options.map((option) => (
            <button key={option} type="button" onClick={() => answer(option)}>{option}</button>
          ))}
        </div>
      ) : (
        <AnswerForm name={name} schema={question.schema} onAnswer={answer} />
      )}
    </section>
  );
}

function AnswerForm({ name, schema, onAnswer }) {
  const fields = fieldsOf(schema);
  const [values, setValues] = useState({});
  const [problem, setProblem] = useState("");
  const submit = (event) => {
    event.preventDefault();
    try {
      onAnswer(valueOf(schema, fields, values));
    } catch (error) {
      setProblem(error.message);
    }
  };
  const set = (field) => (value) => setValues((now) => ({ ...now, [field]: value }));
  return (
    <form onSubmit={submit}>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {fields.map(({ field, label, type, choices, required }) => (
        <Field
          key={field} id={`${name}-${field}`} label={label} type={type} choices={choices} required={required}
          value={values[field]} onChange={set(field)}
        />
      ))}
      <button class="primary">Answer</button>
    </form>
  );
}

function Field({ id, label, type, choices, required, value, onChange }) {
  const text = ({ currentTarget }) => onChange(currentTarget.value);
  if (type === "boolean") {
    return (
      <label class="check">
        <input type="checkbox" checked={value ?? false} onChange={({ currentTarget }) => onChange(currentTarget.checked)} />
        {label}
      </label>
    );
  }
  return (
    <>
      <label for={id}>{label}</label>
      {choices ? (
        <select id={id} required={required} value={value ?? ""} onChange={text}>
          <option value="" />
          {choices.map((choice) => <option key={choice} value={choice}>{choice}</option>)}
        </select>
      ) : type === "json" ? (
        <textarea id={id} rows="4" required={required} value={value ?? ""} onInput={text} />
      ) : (
        <input
          id={id} type={type === "string" ? "text" : "number"} step={type === "integer" ? "1" : "any"} required={required}
          value={value ?? ""} onInput={text}
        />
      )}
    </>
  );
}

const SIMPLE = ["string", "integer", "number", "boolean"];

// The fields of a form: one for each property if all are simple values, else one for the whole answer.
function fieldsOf(schema) {
  if (!schema) return [{ field: "value", label: "Answer", type: "string", required: true }];
  const properties = Object.entries(isObject(schema.properties) ? schema.properties : {});
  if (schema.type === "object" && properties.length && properties.every(([, part]) => SIMPLE.includes(part.type))) {
    return properties.map(([field, part]) => fieldOf(field, part, (schema.required ?? []).includes(field)));
  }
  if (SIMPLE.includes(schema.type)) return [fieldOf("value", schema, true)];
  return [{ field: "value", label: "Answer as JSON", type: "json", required: true }];
}

function fieldOf(field, part, required) {
  const choices = part.type === "string" && Array.isArray(part.enum) ? part.enum : null;
  const label = part.title ?? part.description ?? (field === "value" ? "Answer" : field);
  return { field, label, type: part.type, choices, required };
}

function valueOf(schema, fields, values) {
  if (!schema) return values.value;
  const given = ({ field, type }) => {
    const value = values[field];
    if (type === "boolean") return value ?? false;
    if (value === undefined || value === "") return undefined;
    if (type === "json") return JSON.parse(value);
    return type === "string" ? value : Number(value);
  };
  if (schema.type !== "object" || fields[0].type === "json") return given(fields[0]);
  return Object.fromEntries(fields.map((field) => [field.field, given(field)]));
}
