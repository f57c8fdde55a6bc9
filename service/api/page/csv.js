// The results as CSV (RFC 4180), for spreadsheets, which take a cell that begins with a sign for a formula.

const COLUMNS = ["file", "label", "probability", "confident", "reason", "problem"];

/** Write rows of such columns. A missing value is an empty cell. */
export function writeCsv(rows) {
  const lines = rows.map((row) => COLUMNS.map((column) => writeCell(row[column])));
  return [COLUMNS, ...lines].map((cells) => `${cells.join(",")}\r\n`).join("");
}

function writeCell(value) {
  const text = String(value ?? "").replace(/^(?=[=+\-@\t\r\n])/, "'");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
