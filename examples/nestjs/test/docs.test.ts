/** Does what docs/backend.md shows compile against this module? */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

import ts from 'typescript';

const HERE = resolve(__dirname, '../..');
const PAGE = readFileSync(join(HERE, '../../docs/backend.md'), 'utf8');
const BLOCKS = [...PAGE.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code]) => code!);

/** The errors of `files`, whose text is given, as if they lay in test/. */
function errorsOf(files: Map<string, string>): string[] {
  const config = ts.readConfigFile(join(HERE, 'tsconfig.json'), ts.sys.readFile).config;
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, HERE);
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (name) => files.has(name) || fileExists(name);
  host.readFile = (name) => files.get(name) ?? readFile(name);
  host.getSourceFile = (name, version, ...more) => {
    const text = files.get(name);
    return text === undefined
      ? getSourceFile(name, version, ...more)
      : ts.createSourceFile(name, text, version);
  };
  const program = ts.createProgram([...files.keys()], { ...options, noEmit: true }, host);
  return ts.getPreEmitDiagnostics(program).map(({ messageText, file }) => {
    return `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}

function asFiles(name: string, blocks: string[]): [string, string][] {
  return blocks.map((code, at) => [
    join(HERE, `test/${name}-${at}.ts`),
    code.replace("'./cachesvc'", "'../src'"),
  ]);
}

test('every block of docs/backend.md compiles, and a call that is not there would be found', () => {
  assert.equal(BLOCKS.length, 4);
  const wrong = BLOCKS.map((code) => code.replace('invalidateGarment', 'forgetGarment'));
  const files = new Map([...asFiles('shown', BLOCKS), ...asFiles('wrong', wrong)]);
  const [error, ...more] = errorsOf(files);
  assert.deepEqual(more, []);
  assert.match(error!, /wrong-1\.ts: Property 'forgetGarment' does not exist/);
});
