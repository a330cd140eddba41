// Makes forms of schemas, and values of what is entered into them, for test_form.py. Its one argument is JSON,
// {cases: [{schema, values}]}; it writes a list of {form, value} or {form, problem}.

import { formOf, valueOf } from "../frontend/src/form.js";

const { cases } = JSON.parse(process.argv[2]);
const made = cases.map(({ schema, values }) => {
  const form = formOf(schema);
  try {
    return { form, value: valueOf(form, values) };
  } catch (error) {
    return { form, problem: error.message };
  }
});
console.log(JSON.stringify(made));
