// Writes the dashboard as the JSON that Grafana imports: node build/write.js FILE

import { writeFileSync } from "node:fs";

import { dashboard } from "./dashboard.js";

const [, , file] = process.argv;
if (file === undefined) {
  throw new Error("name the file to write");
}
writeFileSync(file, `${JSON.stringify(dashboard, null, 2)}\n`);
