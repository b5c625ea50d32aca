/** A NestJS backend as a process of its own, which does what its parent's messages say. */

import 'reflect-metadata';

import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';

import { CacheModule, CacheService, type CacheOptions } from '../../src';

export interface Asked {
  id: number;
  method: keyof CacheService;
  args: unknown[];
}

export interface Answered {
  id: number;
  result?: unknown;
  error?: string;
}

async function main(): Promise<void> {
  const options = JSON.parse(process.env.CACHE_OPTIONS!) as CacheOptions;

  @Module({ imports: [CacheModule.forRoot(options)] })
  class App {}

  const app = await NestFactory.createApplicationContext(App, { logger: ['error'] });
  app.enableShutdownHooks();
  const cache = app.get(CacheService);
  process.on('message', async ({ id, method, args }: Asked) => {
    const call = cache[method] as (...values: unknown[]) => Promise<unknown>;
    const answer: Answered = await call.apply(cache, args).then(
      (result) => ({ id, result }),
      (error) => ({ id, error: String(error) }),
    );
    process.send!(answer);
  });
  process.on('disconnect', () => process.exit());
  process.send!({ id: 0 });
}

void main();
