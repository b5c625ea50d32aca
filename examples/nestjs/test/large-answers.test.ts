/** Does a Node program read an entry of more than grpc-js's 4 MiB, as the README says? */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import * as grpc from '@grpc/grpc-js';

import { loadService, PROTO_FILE } from '../src/host-client';
import { Authority } from './support/authority';
import { Daemon } from './support/daemon';

const SIDE = 1024; // the tensor has 6 MiB
const Service = loadService(PROTO_FILE);
const folder = mkdtempSync(join(tmpdir(), 'cachesvc-large-'));
const server = new Authority(folder, 'ours').issue('server', 'IP:127.0.0.2');
const daemon = new Daemon('gpu1', server, false, { tokens: { 'of-a-worker': ['worker'] } });
const garment = { clothing_id: 'coat-1', owner_id: 'user-1', delivery: 'DELIVERY_INLINE' };

before(async () => {
  await daemon.start();
  await daemon.putGarment('coat-1', 'user-1', new Date(), SIDE);
});

after(async () => {
  await daemon.close();
  rmSync(folder, { recursive: true });
});

function clientWith(options: grpc.ChannelOptions) {
  return new Service(daemon.target, grpc.credentials.createInsecure(), options);
}

/** Whether the whole tensor came, otherwise the error. */
function inline(options: grpc.ChannelOptions): Promise<boolean | grpc.ServiceError> {
  const client = clientWith(options);
  return new Promise((resolved) => {
    client.GetGarment!(garment, (error: grpc.ServiceError | null, answer: { entry: { tensors: Buffer } }) => {
      client.close();
      resolved(error ?? answer.entry.tensors.length > 2 * 3 * SIDE * SIDE);
    });
  });
}

test('an inline answer of more than 4 MiB is refused by grpc-js, with no reason of ours', async () => {
  const error = await inline({});
  assert.ok(error instanceof Error);
  assert.equal(error.code, grpc.status.RESOURCE_EXHAUSTED);
  assert.match(error.details, /Received message larger than max/);
  assert.deepEqual(error.metadata.get('cachesvc-reason'), []);
});

test('it comes whole with the option that the README names', async () => {
  assert.equal(await inline({ 'grpc.max_receive_message_length': -1 }), true);
});

test('it comes whole as a stream without an option', async () => {
  const client = clientWith({});
  let bytes = 0;
  for await (const message of client.Get!({ key: { namespace: 'garment', id: 'coat-1' } })) {
    bytes += (message as { data?: Buffer }).data?.length ?? 0;
  }
  client.close();
  assert.ok(bytes > 2 * 3 * SIDE * SIDE);
});
