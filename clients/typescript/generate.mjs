// Types of the service at AZIMUTH_URL, into src/schema.ts.
import { writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const answer = await fetch(`${process.env.AZIMUTH_URL ?? "http://localhost:8000"}/openapi.json`);
const document = await answer.json();
await writeFile("src/schema.ts", astToString(await openapiTS(document, { defaultNonNullable: false })));
