// Types of the service at AZIMUTH_URL, into src/schema.ts.
import { writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const answer = await fetch(`${process.env.AZIMUTH_URL ?? "http://localhost:8000"}/openapi.json`);
const document = await answer.json();
for (const schema of Object.values(document.components.schemas)) {
  // "One of these fields must be there" would become a union with `unknown`, which takes every type away.
  for (const name of ["anyOf", "oneOf"])
    if (schema.properties && schema[name]?.every((one) => Object.keys(one).join() === "required")) delete schema[name];
}
await writeFile("src/schema.ts", astToString(await openapiTS(document, { defaultNonNullable: false })));
