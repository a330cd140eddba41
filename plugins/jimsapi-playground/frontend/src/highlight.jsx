// Code with colours, and the guess which language a text is in. Every token is a text node, never HTML.

const QUOTED = String.raw`'(?:[^'\\]|\\[^]|'')*(?:'|$)|"(?:[^"\\]|\\[^])*(?:"|$)`;
const COMMENT = String.raw`--[^\n]*|\/\/[^\n]*|\/\*[^*]*(?:\*(?!\/)[^*]*)*(?:\*\/|$)`;
const NUMBER = String.raw`\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b`;
const QUERY = new RegExp(`(?<comment>${COMMENT})|(?<string>${QUOTED})|(?<number>${NUMBER})|(?<word>[A-Za-z_]\\w*)`, "g");
const JSON_TOKEN = /(?<key>"(?:[^"\\]|\\[^])*"(?=\s*:))|(?<string>"(?:[^"\\]|\\[^])*")|(?<number>-?\b\d[\d.eE+-]*)|(?<keyword>\b(?:true|false|null)\b)/g;

const words = (text) => new Set(text.split(" "));
const KEYWORDS = {
  sql: words(
    "ALL AND AS ASC BETWEEN BY CASE CREATE CROSS DELETE DESC DISTINCT DROP ELSE END EXCEPT EXISTS EXPLAIN FALSE FROM FULL " +
      "GROUP HAVING IN INNER INSERT INTERSECT INTO IS JOIN LEFT LIKE LIMIT NOT NULL OFFSET ON OR ORDER OUTER OVER " +
      "PARTITION RETURNING RIGHT SELECT SET TABLE THEN TRUE UNION UPDATE USING VALUES WHEN WHERE WITH",
  ),
  cypher: words(
    "AND AS ASC BY CALL CASE CONTAINS CREATE DELETE DESC DETACH DISTINCT ELSE END ENDS EXISTS FALSE IN IS LIMIT MATCH MERGE " +
      "NOT NULL ON OPTIONAL OR ORDER REMOVE RETURN SET SKIP STARTS THEN TRUE UNION UNWIND WHEN WHERE WITH XOR YIELD",
  ),
};

const CYPHER = /^\s*(?:(?:OPTIONAL\s+)?MATCH|MERGE|UNWIND|CALL|CREATE\s*\(|WITH\b[^]{0,2000}\bRETURN)\b/i;
const SQL = /^\s*(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WITH|CREATE\s+TABLE|EXPLAIN)\b[^]*\s/i;
const COLOURED = 20_000; // characters; what follows is shown without colours

export function languageOf(text, name = "") {
  if (typeof text !== "string") return null;
  if (/cypher/i.test(name) || CYPHER.test(text)) return "cypher";
  if (/sql/i.test(name) || SQL.test(text)) return "sql";
  return null;
}

export function Code({ text, language }) {
  const coloured = text.slice(0, COLOURED);
  return (
    <pre class={`code ${language}`}>
      <code>
        {tokens(coloured, language)}
        {text.slice(COLOURED)}
      </code>
    </pre>
  );
}

function tokens(text, language) {
  const pattern = language === "json" ? JSON_TOKEN : QUERY;
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    const kind = kindOf(found.groups, language);
    if (!kind) continue;
    if (found.index > end) parts.push(text.slice(end, found.index));
    parts.push(<span class={`t-${kind}`}>{found[0]}</span>);
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

function kindOf(groups, language) {
  const [kind, text] = Object.entries(groups).find(([, value]) => value !== undefined);
  if (kind !== "word") return kind;
  return KEYWORDS[language].has(text.toUpperCase()) ? "keyword" : null;
}

// Returns the queries within a JSON value, with the path of each.
export function queriesIn(value, path = "", depth = 0) {
  if (typeof value === "string") {
    const language = languageOf(value, path);
    return language && value.trim() ? [{ path, text: value, language }] : [];
  }
  if (typeof value !== "object" || value === null || depth > 4) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    queriesIn(inner, Array.isArray(value) ? path : path ? `${path}.${name}` : name, depth + 1),
  );
}
