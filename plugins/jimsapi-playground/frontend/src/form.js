// The form for a JSON Schema: its fields, and the value that they make. An object has a field for each property, and an
// object within it a group of fields. What has no field of its own is written as JSON.

import { isObject } from "./turns.js";

const DEEPEST = 10; // references that follow each other
const DEEPEST_SHAPE = 4; // forms and lists within each other
const PARTS = 100; // of a schema that are put into words for one field
const LONGEST_SHAPE = 500; // characters
const NAMES = { string: "a text", integer: "a whole number", number: "a number", boolean: "true or false", null: "null" };

const TEXT = { name: "value", label: "Answer", kind: "string", isRequired: true };

// Returns {fields, description, isWhole}. If `isWhole` is true, the only field is the whole answer. A schema that this
// page cannot read makes one field for JSON.
export function formOf(schema) {
  try {
    return readForm(schema);
  } catch {
    const field = { name: "value", label: "Answer as JSON", kind: "json", isRequired: true, isMarked: false };
    return { fields: [field], isWhole: true };
  }
}

function readForm(schema) {
  if (!schema) return { fields: [TEXT], isWhole: true };
  const whole = resolved(schema, schema);
  const fields = hasProperties(whole) ? fieldsOf(whole, schema, 1) : [fieldOf("value", schema, true, schema, 0)];
  if (hasProperties(whole)) return { fields, description: textOr(whole.description), isWhole: false };
  fields[0].isMarked = false; // it is the only one
  if (typeof schema.title !== "string") fields[0].label = fields[0].kind === "json" ? "Answer as JSON" : "Answer";
  return { fields, isWhole: true };
}

// Returns the value that was entered. Throws an error for a person, with the field, if that has no JSON.
export function valueOf({ fields, isWhole }, values) {
  return isWhole ? given(fields[0], enteredIn(values, fields[0])) : objectOf(fields, values);
}

// The value of a field before a person changes it, as its control needs it.
export function initialOf({ kind, initial }) {
  if (kind === "boolean") return initial === true;
  if (initial === undefined || initial === null) return "";
  if (kind === "json") return JSON.stringify(initial, null, 2);
  return typeof initial === "object" ? "" : String(initial);
}

function fieldsOf(schema, root, depth) {
  const required = Array.isArray(schema.required) ? schema.required : [];
  const initial = isObject(schema.default) ? schema.default : {};
  return Object.entries(schema.properties).map(([name, part]) => {
    const field = fieldOf(name, part, required.includes(name), root, depth);
    return Object.hasOwn(initial, name) ? { ...field, initial: initial[name] } : field;
  });
}

function textOr(value, otherwise) {
  return typeof value === "string" ? value : otherwise;
}

function fieldOf(name, part, isRequired, root, depth) {
  const schema = resolved(part, root);
  const mayBeNull = schema.isNullable || (Array.isArray(schema.enum) && schema.enum.includes(null));
  const field = {
    name,
    label: textOr(part?.title, name),
    description: textOr(schema.description),
    initial: schema.default,
    isRequired: isRequired && !mayBeNull,
    isMarked: isRequired && !mayBeNull && schema.type !== "boolean",
    empty: isRequired && mayBeNull ? null : undefined, // what an empty field means
  };
  const choices = choicesOf(schema);
  if (choices) return { ...field, kind: "choice", choices };
  if (schema.type !== "null" && nameOf(schema)) return { ...field, kind: schema.type };
  if (depth === 1 && hasProperties(schema)) {
    const fields = fieldsOf(schema, root, 2);
    if (fields.every(({ kind }) => kind !== "json")) return { ...field, kind: "group", fields };
  }
  const json = { ...field, kind: "json", label: `${field.label} as JSON` };
  return depth === 2 ? json : { ...json, shape: shortened(shapeOf(part, root)) };
}

// The values that a person can choose from, or null. A field that is left empty stands for null.
function choicesOf(schema) {
  const all = "const" in schema ? [schema.const] : schema.enum;
  if (Array.isArray(all) && all.some((one) => one !== null)) {
    const choices = all.filter((one) => one !== null);
    return choices.some((one) => typeof one === "object") ? null : choices;
  }
  return schema.type === "boolean" && schema.isNullable ? [true, false] : null;
}

function hasProperties({ properties }) {
  return isObject(properties) && Object.keys(properties).length > 0;
}

// A schema without references. One form beside null is that form, and may be left out.
function resolved(schema, root, depth = 0) {
  if (!isObject(schema) || depth > DEEPEST) return {};
  const { $ref, allOf, anyOf, oneOf, ...own } = schema;
  if (typeof $ref === "string") return { ...resolved(referenced($ref, root), root, depth + 1), ...own };
  if (allOf?.length === 1) return { ...resolved(allOf[0], root, depth + 1), ...own };
  const all = anyOf ?? oneOf;
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((one) => one !== "null");
    const type = types.length === 1 ? types[0] : types;
    return { ...schema, type, isNullable: types.length < schema.type.length };
  }
  if (!Array.isArray(all)) return schema;
  const forms = all.filter((form) => form?.type !== "null");
  const isNullable = forms.length < all.length;
  if (forms.length !== 1) return { ...own, forms: all, isNullable };
  return { ...resolved(forms[0], root, depth + 1), ...own, isNullable };
}

function referenced(reference, root) {
  if (reference === "#") return root;
  const names = reference.replace(/^#\//, "").split("/");
  return names.reduce((found, name) => (isObject(found) ? found[name] : undefined), root);
}

function nameOf({ type }) {
  return typeof type === "string" && Object.hasOwn(NAMES, type) ? NAMES[type] : undefined;
}

function shortened(text) {
  return text.length > LONGEST_SHAPE ? `${text.slice(0, LONGEST_SHAPE)}…` : text;
}

// What the JSON of a field has to be, in words, with the names of its fields. A schema can refer to itself, so its depth
// and the number of its parts have limits.
function shapeOf(part, root, depth = 0, count = { parts: 0 }) {
  count.parts += 1;
  if (depth > DEEPEST_SHAPE || count.parts > PARTS) return "any value";
  const schema = resolved(part, root);
  const within = (inner) => shapeOf(inner, root, depth + 1, count);
  if (schema.forms) return schema.forms.slice(0, PARTS).map(within).join(", or ");
  if (Array.isArray(schema.enum)) return schema.enum.slice(0, PARTS).map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return schema.items && depth < DEEPEST_SHAPE ? `a list, each of it ${within(schema.items)}` : "a list";
  if (!hasProperties(schema)) return nameOf(schema) ?? (schema.type === "object" ? "an object" : "any value");
  const required = Array.isArray(schema.required) ? schema.required : [];
  const names = Object.entries(schema.properties).slice(0, PARTS).map(([name, inner]) => {
    const { type, properties, forms } = resolved(inner, root);
    const isDeep = depth < DEEPEST_SHAPE - 1 && (properties || forms || type === "array");
    const facts = [required.includes(name) && "required", isDeep && within(inner)].filter(Boolean);
    return facts.length ? `${name} (${facts.join(", ")})` : name;
  });
  return `an object with ${names.length === 1 ? "the field" : "the fields"} ${names.join(", ")}`;
}

function objectOf(fields, values) {
  return Object.fromEntries(fields.map((field) => [field.name, given(field, enteredIn(values, field))]));
}

// What was entered into a field, or undefined. A field can have the name of something that each object has.
export function enteredIn(values, { name }) {
  return values !== undefined && Object.hasOwn(values, name) ? values[name] : undefined;
}

// A group that may be left out, and in which a person has changed nothing, is left out.
export function isLeftOut({ kind, isRequired, fields }, values) {
  const isChanged = (field) => (enteredIn(values, field) ?? initialOf(field)) !== initialOf(field);
  return kind === "group" && !isRequired && !fields.some(isChanged);
}

function given(field, value) {
  const { kind, label, choices, fields, initial, isRequired, empty } = field;
  if (kind === "group") return isLeftOut(field, value) ? empty : objectOf(fields, value ?? {});
  if (kind === "boolean" && value === undefined && !isRequired) return initial ?? empty;
  const text = value ?? initialOf(field);
  if (kind === "boolean") return text;
  if (text === "") return empty;
  if (kind === "choice") return choices.find((one) => String(one) === text);
  if (kind === "string") return text;
  if (kind !== "json") return Number(text);
  try {
    return value === undefined ? initial : JSON.parse(text);
  } catch {
    const problem = `“${label}” has a text that is not JSON. Texts in JSON have double quotes, for example "Main Street 1".`;
    throw Object.assign(new Error(problem), { field });
  }
}
