/** Does every invalidation arrive at every host? Real daemons over mTLS, Redis, NestJS processes. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';

import { status as Code } from '@grpc/grpc-js';

import type { CacheOptions } from '../src';
import { HostClient } from '../src/host-client';
import { Outbox } from '../src/outbox';
import { Authority } from './support/authority';
import { Backend } from './support/backend';
import { Daemon } from './support/daemon';
import { until } from './support/processes';
import { RedisServer } from './support/redis';

const SECOND_MS = 1000;
const folder = mkdtempSync(join(tmpdir(), 'cachesvc-outbox-'));
const authority = new Authority(folder, 'ours');
const tls = authority.issue('backend', 'DNS:backend.example');
const server = authority.issue('server', 'IP:127.0.0.2');
const asBackend = { certificates: { 'backend.example': ['backend' as const] } };
const gpu1 = new Daemon('gpu1', server, true, asBackend);
const gpu2 = new Daemon('gpu2', server, true, asBackend);
const redis = new RedisServer();
let backend: Backend;
let users = 0;
let user = '';

before(async () => {
  await Promise.all([gpu1.start(), gpu2.start(), redis.start()]);
  backend = await Backend.start(options());
});

after(async () => {
  await backend.kill();
  await Promise.all([gpu1.close(), gpu2.close(), redis.close()]);
  rmSync(folder, { recursive: true });
});

beforeEach(() => {
  users += 1;
  user = `user-${users}`;
});

function options(more: Partial<CacheOptions> = {}): CacheOptions {
  return {
    hosts: [gpu1.host, gpu2.host],
    redis: { host: redis.host, port: redis.port },
    tls,
    callTimeoutMs: 2 * SECOND_MS,
    maxBackoffMs: 300,
    ...more,
  };
}

function longAgo(): Date {
  return new Date(Date.now() - 60 * SECOND_MS);
}

async function backlogOf(host: string) {
  const backlogs = await backend.backlog();
  return backlogs.find((backlog) => backlog.host === host)!;
}

test('a person is gone from every host when it is acknowledged', async () => {
  await Promise.all([gpu1.putPerson(user, longAgo()), gpu2.putPerson(user, longAgo())]);
  const sent = await backend.invalidateHuman(user, new Date());
  const answers = await backend.acknowledged(sent, 10 * SECOND_MS);
  assert.deepEqual(
    answers.map(({ host, removedCount }) => [host, removedCount]),
    [
      ['gpu1', 1],
      ['gpu2', 1],
    ],
  );
  assert.equal(await gpu1.holds('human_upper_body', user), false);
  assert.equal(await gpu2.holds('human_upper_body', user), false);
});

test('a job of a host that is down waits, and the other host acknowledges at once', async () => {
  await Promise.all([gpu1.putPerson(user, longAgo()), gpu2.putPerson(user, longAgo())]);
  await gpu2.stop();
  const changedAt = new Date();
  const sent = await backend.invalidateHuman(user, changedAt);
  const [first, second] = sent.jobs;
  await backend.acknowledged({ ...sent, jobs: [first!] }, 10 * SECOND_MS);
  assert.equal(await gpu1.holds('human_upper_body', user), false);
  const waiting = await until(async () => {
    const backlog = await backlogOf('gpu2');
    return backlog.lastError !== undefined && backlog;
  }, 'an attempt at the host that is down');
  assert.equal(waiting.waiting, 1);
  assert.deepEqual(waiting.oldestChangedAt, changedAt);
  assert.match(waiting.lastError!, /^gpu2: (UNAVAILABLE|DEADLINE_EXCEEDED)/);

  await gpu2.start();
  const [answer] = await backend.acknowledged({ ...sent, jobs: [second!] }, 20 * SECOND_MS);
  assert.equal(answer!.removedCount, 1);
  assert.equal(await gpu2.holds('human_upper_body', user), false);
  assert.equal((await backlogOf('gpu2')).waiting, 0);
});

test('when a host is gone for ever, the change is repeated for those that are left', async () => {
  await gpu2.stop();
  const sent = await backend.invalidateHuman(user, new Date());
  await assert.rejects(backend.acknowledged(sent, SECOND_MS));
  await backend.kill();
  backend = await Backend.start(options({ hosts: [gpu1.host] }));
  await assert.rejects(backend.acknowledged(sent, 10 * SECOND_MS), /gpu2 is none of the hosts; .*repeat the change/);
  const again = await backend.invalidateHuman(user, sent.changedAt);
  const answers = await backend.acknowledged(again, 10 * SECOND_MS);
  assert.deepEqual(answers.map(({ host }) => host), ['gpu1']);

  // Its jobs stayed: a host that comes back after all gets what it missed.
  await backend.kill();
  await gpu2.start();
  backend = await Backend.start(options());
  await backend.acknowledged(sent, 10 * SECOND_MS);
});

test('the time of the change is that of the job, however late it is delivered', async () => {
  await gpu2.stop();
  const changedAt = new Date();
  const sent = await backend.invalidateHuman(user, changedAt);
  await gpu2.start();
  await backend.acknowledged(sent, 20 * SECOND_MS);
  const before = new Date(changedAt.getTime() - 1);
  await assert.rejects(gpu2.putPerson(user, before), { code: Code.ABORTED });
  // What was read after the change, and before the delivery, is as new as it has to be.
  await gpu2.putPerson(user, changedAt);
  assert.equal(await gpu2.holds('human_upper_body', user), true);
});

test('a kill of Redis loses no job', async () => {
  await gpu2.putPerson(user, longAgo());
  await gpu2.stop();
  const sent = await backend.invalidateHuman(user, new Date());
  await redis.kill();
  await assert.rejects(backend.invalidateHuman(user, new Date()), 'what is not in Redis is an error');
  await redis.start();
  await gpu2.start();
  const answers = await backend.acknowledged(sent, 20 * SECOND_MS);
  assert.equal(answers.length, 2);
  assert.equal(await gpu2.holds('human_upper_body', user), false);
});

test('a backend starts while Redis is away, refuses, and delivers when it is back', async () => {
  await redis.kill();
  const early = await Backend.start(options());
  await assert.rejects(early.invalidateHuman(user, new Date()));
  await redis.start();
  await early.acknowledged(await early.invalidateHuman(user, new Date()), 20 * SECOND_MS);
  await early.kill();
});

test('a kill of the backend loses no job: the next process delivers', async () => {
  await gpu2.putPerson(user, longAgo());
  await gpu2.stop();
  const sent = await backend.invalidateHuman(user, new Date());
  await backend.kill();
  await gpu2.start();
  backend = await Backend.start(options());
  // A job that was being tried when the process died is free after its lock, here 4 s.
  await backend.acknowledged(sent, 50 * SECOND_MS);
  assert.equal(await gpu2.holds('human_upper_body', user), false);
});

test('a refused role is tried again until somebody has mended it', async () => {
  await gpu1.putPerson(user, longAgo());
  gpu1.allow({ certificates: { 'backend.example': ['worker'] } });
  const sent = await backend.invalidateHuman(user, new Date());
  await until(
    async () => /ROLE_MISSING/.test((await backlogOf('gpu1')).lastError ?? ''),
    'a refusal',
  );
  assert.equal(await gpu1.holds('human_upper_body', user), true);
  gpu1.allow(asBackend);
  await backend.acknowledged(sent, 20 * SECOND_MS);
  assert.equal(await gpu1.holds('human_upper_body', user), false);
});

test('what a host will never take is kept as a dead letter, and can be tried again', async () => {
  const hosts = [{ ...gpu1.host, name: 'gpu1-again' }];
  const client = new HostClient(hosts[0]!, options());
  const outbox = new Outbox(options({ hosts }), async (host, { target, changedAt }) => {
    const changed_at = { seconds: String(Math.floor(Date.parse(changedAt) / 1000)), nanos: 0 };
    await client.invalidate({ ...target, changed_at });
    return { host, removedCount: 0, invalidatedAt: '' };
  });
  // Past the service, which refuses such an id before it is a job.
  const target = { user_id: '..' };
  const changedAt = new Date().toISOString();
  const sent = await outbox.add({ target, changedAt, erase: false });
  await assert.rejects(outbox.acknowledged(sent, 10 * SECOND_MS), /INVALID_ID/);

  const [letter, ...more] = await outbox.deadLetters();
  assert.equal(more.length, 0);
  assert.deepEqual(letter!.change, { target, changedAt, erase: false });
  assert.match(letter!.error, /INVALID_ARGUMENT INVALID_ID/);
  await outbox.redeliver('gpu1-again', letter!.id);
  await until(
    async () => (await outbox.deadLetters())[0]?.failedAt.getTime() !== letter!.failedAt.getTime(),
    'the second attempt',
  );
  await outbox.close();
  client.close();
});
