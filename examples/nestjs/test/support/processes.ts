/** How are servers run for a test so that none outlives it? */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { openSync, closeSync, readFileSync } from 'node:fs';

/** Starts `command` so that it dies with this process; its output goes to `log`. */
export function start(command: string[], log: string, env: NodeJS.ProcessEnv): ChildProcess {
  const output = openSync(log, 'a');
  const process = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
    env,
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  return process;
}

/** Repeating it is harmless. */
export async function end(process: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  const ended = once(process, 'exit');
  process.kill(signal);
  await ended;
}

export async function freePort(host: string): Promise<number> {
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves as soon as `look` gives something; the deadline only ends a test that has failed. */
export async function until<T>(
  look: () => Promise<T | undefined | false>,
  what: string,
  withinMs = 20_000,
): Promise<T> {
  const giveUp = Date.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > giveUp) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export function tail(log: string): string {
  return readFileSync(log, 'utf8').slice(-2000);
}
