/** The parent's side of a backend process. */

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import type { Acknowledgement, Backlog, CacheOptions, CacheService, DeadLetter, Receipt } from '../../src';
import { end } from './processes';
import type { Answered } from './backend-process';

export class Backend {
  private calls = 0;

  private constructor(private readonly process: ChildProcess) {}

  static async start(options: CacheOptions): Promise<Backend> {
    const child = fork(join(__dirname, 'backend-process.js'), {
      env: { ...process.env, CACHE_OPTIONS: JSON.stringify(options) },
      serialization: 'advanced', // keeps dates
    });
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => Promise.reject(new Error('the backend did not start'))),
    ]);
    return new Backend(child);
  }

  invalidateHuman(userId: string, changedAt: Date): Promise<Receipt> {
    return this.ask('invalidateHuman', userId, { changedAt });
  }

  acknowledged(sent: Receipt, timeoutMs: number): Promise<Acknowledgement[]> {
    return this.ask('acknowledged', sent, timeoutMs);
  }

  backlog(): Promise<Backlog[]> {
    return this.ask('backlog');
  }

  deadLetters(): Promise<DeadLetter[]> {
    return this.ask('deadLetters');
  }

  /** kill -9, amid whatever it does. */
  kill(): Promise<void> {
    return end(this.process, 'SIGKILL');
  }

  private async ask<T>(method: keyof CacheService, ...args: unknown[]): Promise<T> {
    this.calls += 1;
    const id = this.calls;
    const answered = new Promise<Answered>((resolve) => {
      const listen = (answer: Answered) => {
        if (answer.id !== id) return;
        this.process.off('message', listen);
        resolve(answer);
      };
      this.process.on('message', listen);
    });
    this.process.send({ id, method, args });
    const { result, error } = await answered;
    if (error) throw new Error(error);
    return result as T;
  }
}
