// Reads an AsyncAPI document from the file that is named and prints what its parser finds wrong; exit code 1 then.
const { Parser } = require("@asyncapi/parser");
const { readFileSync } = require("node:fs");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  const errors = diagnostics.filter((found) => found.severity === 0);
  for (const found of errors) console.log(found.path.join("/"), found.message);
  if (document === undefined || errors.length > 0) process.exit(1);
  console.log(document.channels().all().length, "channels");
});
