/** A Redis of the test's own, durable as the outbox needs it. */

import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { end, freePort, start, tail, until } from './processes';

export class RedisServer {
  readonly host = '127.0.0.1';
  port = 0;
  private readonly folder = mkdtempSync(join(tmpdir(), 'cachesvc-redis-'));
  private readonly log = join(this.folder, 'log');
  private process: ChildProcess | undefined;

  async start(): Promise<void> {
    this.port ||= await freePort(this.host);
    const settings = {
      port: String(this.port),
      bind: this.host,
      dir: this.folder,
      appendonly: 'yes',
      save: '',
      'maxmemory-policy': 'noeviction',
    };
    const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    this.process = start(['redis-server', ...words], this.log, process.env);
    await until(() => this.answers(), `redis: ${tail(this.log)}`);
  }

  /** kill -9: what it has is what its append-only file has. */
  async kill(): Promise<void> {
    if (this.process) await end(this.process, 'SIGKILL');
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true });
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, this.host, () => socket.write('PING\r\n'));
      socket.once('data', (data) => resolve(String(data).startsWith('+PONG')));
      socket.once('data', () => socket.destroy());
      socket.once('error', () => resolve(false));
    });
  }
}
