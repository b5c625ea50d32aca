/** What do the calls beside the outbox answer? A real daemon, and a host that is down. */

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { status as Code } from '@grpc/grpc-js';

import { CacheModule, CacheService, PhotoChange, type CacheOptions } from '../src';
import { Authority } from './support/authority';
import { Daemon } from './support/daemon';
import { freePort } from './support/processes';
import { RedisServer } from './support/redis';

const folder = mkdtempSync(join(tmpdir(), 'cachesvc-service-'));
const authority = new Authority(folder, 'ours');
const tls = authority.issue('backend', 'DNS:backend.example');
const certificates = { 'backend.example': ['backend' as const] };
const gpu = new Daemon('gpu', authority.issue('server', 'IP:127.0.0.2'), true, { certificates });
const redis = new RedisServer();
let app: INestApplicationContext;
let cache: CacheService;

before(async () => {
  await Promise.all([gpu.start(), redis.start()]);
  const down = { name: 'down', address: `127.0.0.2:${await freePort('127.0.0.2')}` };
  const options: CacheOptions = {
    hosts: [down, gpu.host],
    redis: { host: redis.host, port: redis.port },
    tls,
    maxBackoffMs: 300,
  };

  @Module({ imports: [CacheModule.forRootAsync({ useFactory: () => options })] })
  class App {}

  app = await NestFactory.createApplicationContext(App, { logger: ['error'] });
  cache = app.get(CacheService);
});

after(async () => {
  await app.close();
  await Promise.all([gpu.close(), redis.close()]);
  rmSync(folder, { recursive: true });
});

test('the first host that can say so says whether an entry exists', async () => {
  await gpu.putPerson('ann', new Date());
  assert.equal(await cache.exists({ userId: 'ann', category: 'upper_body' }), true);
  assert.equal(await cache.exists({ userId: 'ann', category: 'dresses' }), false);
  assert.equal(await cache.exists({ clothingId: 'coat', ownerId: 'ann' }), false);
  await gpu.putGarment('coat', 'ann', new Date());
  assert.equal(await cache.exists({ clothingId: 'coat' }), true);
});

test('an entry from before the change does not exist', async () => {
  await gpu.putPerson('bob', new Date(Date.now() - 60_000));
  const wanted = { userId: 'bob', category: 'upper_body' } as const;
  assert.equal(await cache.exists({ ...wanted, originAfter: new Date() }), false);
  assert.equal(await cache.exists(wanted), true);
});

test('an absence that nobody could look for is an error and not false', async () => {
  await assert.rejects(cache.exists({ clothingId: 'unknown' }), {
    code: Code.FAILED_PRECONDITION,
    reason: 'OWNER_REQUIRED',
  });
});

test('a deleted account takes the person and every garment of that owner', async () => {
  await gpu.putPerson('eve', new Date());
  await gpu.putGarment('hat', 'eve', new Date());
  await gpu.putGarment('tie', 'ann', new Date());
  const receipt = await cache.deleteAccount('eve');
  const [answer] = await cache.acknowledged(
    { ...receipt, jobs: receipt.jobs.filter(({ host }) => host === 'gpu') },
    10_000,
  );
  assert.equal(answer!.removedCount, 2);
  assert.equal(await gpu.holds('human_upper_body', 'eve'), false);
  assert.equal(await gpu.holds('garment', 'hat'), false);
  assert.equal(await gpu.holds('garment', 'tie'), true);
});

test('an edited garment is removed by its own id', async () => {
  await gpu.putGarment('scarf', 'ann', new Date());
  const receipt = await cache.invalidateGarment('scarf');
  const onGpu = receipt.jobs.filter(({ host }) => host === 'gpu');
  await cache.acknowledged({ ...receipt, jobs: onGpu }, 10_000);
  assert.equal(await gpu.holds('garment', 'scarf'), false);
});

test('after a photo was changed only the new one exists', async () => {
  const wanted = { userId: 'zoe', category: 'upper_body' } as const;
  await gpu.putPerson('zoe', new Date(Date.now() - 60_000));
  let changedAt = new Date(0);
  const photos = new PhotoChange(
    {
      recordChange: async () => (changedAt = new Date()),
      deletePrepared: async () => undefined,
      // As a worker does: what it reads after the change is at least as new. The invalidation
      // may come later still, and then the origin has it.
      prepare: async (change) => {
        assert.equal(await cache.exists({ ...wanted, originAfter: change.changedAt }), false);
        await gpu.putPerson(change.userId, change.changedAt, { persist: true });
        return 'done';
      },
      finishChange: async () => undefined,
      unfinishedChanges: async () => [],
    },
    cache,
  );
  assert.equal(await photos.change('zoe'), changedAt);
  assert.equal(await cache.exists({ ...wanted, originAfter: changedAt }), true);
});

test('a warm-up says for each host what came of it', async () => {
  await gpu.putPerson('kim', new Date());
  const [down, up] = await cache.warmup('kim', { categories: ['upper_body', 'dresses'] });
  assert.equal(down!.error!.code, Code.UNAVAILABLE);
  assert.deepEqual([up!.done, up!.total], [2, 2]);
  assert.deepEqual(up!.failed, []);
  assert.deepEqual(up!.absent, [
    { namespace: 'human_dresses', id: 'kim', reason: 'NO_SUCH_OBJECT' },
  ]);
});

test('what is no id never becomes a job', async () => {
  for (const id of ['..', '', 'a/b', '-rf', 'x'.repeat(129)]) {
    await assert.rejects(cache.invalidateHuman(id), RangeError);
  }
});

test('an address that is a list of hosts is refused', () => {
  for (const address of ['ipv4:127.0.0.1:1,127.0.0.1:2', 'xds:///gpus', '127.0.0.1:1,127.0.0.1:2']) {
    const hosts = [{ name: 'a', address }];
    assert.throws(() => new CacheService({ hosts, redis: {} }), /is not one host:port/, address);
  }
});

test('options that cannot work are all named at once', () => {
  const hosts = [
    { name: 'a', address: '10.0.0.5:8443' },
    { name: 'a', address: '10.0.0.6:8443' },
  ];
  assert.throws(() => new CacheService({ hosts, redis: {} }), (error: Error) => {
    assert.match(error.message, /a twice/);
    assert.match(error.message, /10\.0\.0\.5:8443 is beyond loopback and needs tls/);
    assert.match(error.message, /10\.0\.0\.6:8443/);
    return true;
  });
});
