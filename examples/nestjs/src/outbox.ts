/**
 * How does an invalidation reach every host, even if some are down? One job for each host.
 *
 * A job is in Redis before `add` answers, and leaves only when its host has acknowledged, or
 * when the host has refused it for ever (a dead letter, kept until `redeliver`). Each host has
 * its own queue, so a host that hangs delays no other. The time of the change is fixed when the
 * job is made: a delivery days later refuses exactly what was older then, and delivering twice
 * does no harm.
 */

import { Logger } from '@nestjs/common';
import { FlowProducer, Job, Queue, QueueEvents, UnrecoverableError, Worker } from 'bullmq';

import { CacheCallError } from './cache-call-error';
import { DEFAULT_CALL_TIMEOUT_MS, DEFAULT_MAX_BACKOFF_MS, type CacheOptions } from './options';

export interface Change {
  target: { user_id: string } | { clothing_id: string } | { owner_id: string };
  /** ISO 8601. */
  changedAt: string;
  erase: boolean;
}

export interface Acknowledgement {
  host: string;
  removedCount: number;
  invalidatedAt: string;
}

/** Says that the jobs are in Redis, not that they were delivered. */
export interface Receipt {
  changedAt: Date;
  jobs: { host: string; id: string }[];
}

export interface Backlog {
  host: string;
  waiting: number;
  /** The time of the oldest change that is not acknowledged. */
  oldestChangedAt?: Date;
  /** Why the last attempt failed of the oldest change that was tried. */
  lastError?: string;
}

export interface DeadLetter {
  host: string;
  id: string;
  change: Change;
  error: string;
  failedAt: Date;
}

type Deliver = (host: string, change: Change) => Promise<Acknowledgement>;
type ChangeJob = Job<Change, Acknowledgement>;
const UNFINISHED = ['active', 'waiting', 'delayed', 'prioritized'] as const;

const JOB_OPTIONS = {
  attempts: Number.MAX_SAFE_INTEGER,
  backoff: { type: 'custom' },
  // How long `acknowledged` can find a job; dead letters stay until they are redelivered.
  removeOnComplete: { age: 24 * 3600, count: 10_000 },
  removeOnFail: false,
  stackTraceLimit: 1,
  keepLogs: 0,
};
const FIRST_BACKOFF_MS = 200;
const CONCURRENT_CALLS = 8;
// How many jobs of each state `backlog` reads to find the oldest.
const LOOKED_THROUGH = 100;

export class Outbox {
  private readonly log = new Logger('CacheOutbox');
  private readonly queues = new Map<string, Queue<Change, Acknowledgement>>();
  private readonly events = new Map<string, QueueEvents>();
  private readonly workers: Worker<Change, Acknowledgement>[] = [];
  private readonly producer: FlowProducer;

  constructor(
    private readonly options: CacheOptions,
    private readonly deliver: Deliver,
  ) {
    // Without an offline queue: while Redis is away `add` fails at once, and its caller knows.
    const asking = { connection: { ...options.redis, enableOfflineQueue: false } };
    this.producer = this.watched(new FlowProducer(asking));
    for (const { name } of options.hosts) {
      this.queues.set(name, this.watched(new Queue(queueOf(name), asking)));
      this.events.set(name, this.watched(new QueueEvents(queueOf(name), this.following())));
      if (options.deliver ?? true) this.workers.push(this.newWorker(name));
    }
  }

  /** Warns if a restart of Redis would lose jobs. Waits for Redis without a limit. */
  async checkRedis(): Promise<void> {
    const [queue] = this.queues.values();
    const info = await (await queue!.client).info();
    if (!info.includes('aof_enabled:1')) {
      this.log.warn('Redis has appendonly off: its restart loses invalidations');
    }
  }

  /** Resolves when every host has its job in Redis: all of them, or none. */
  async add(change: Change): Promise<Receipt> {
    const hosts = [...this.queues.keys()];
    const added = this.producer.addBulk(
      hosts.map((host) => ({
        name: 'invalidate',
        queueName: queueOf(host),
        data: change,
        opts: JOB_OPTIONS,
      })),
    );
    // BullMQ waits without a limit for a Redis that it never reached. A job that arrives late
    // does no harm.
    const nodes = await within(this.callTimeoutMs, added, 'Redis did not take the jobs in time');
    const jobs = nodes.map(({ job }, at) => ({ host: hosts[at]!, id: job.id! }));
    return { changedAt: new Date(change.changedAt), jobs };
  }

  /** Resolves when every host has acknowledged. Rejects after `timeoutMs`; the jobs stay. */
  async acknowledged(receipt: Receipt, timeoutMs: number): Promise<Acknowledgement[]> {
    return Promise.all(
      receipt.jobs.map(async ({ host, id }) => {
        const job = await this.queue(host).getJob(id);
        if (!job) throw new Error(`${host}: job ${id} is not known any more`);
        return job.waitUntilFinished(this.events.get(host)!, timeoutMs);
      }),
    );
  }

  /** The waiting jobs of each host. Set an alert on `oldestChangedAt`. */
  async backlog(): Promise<Backlog[]> {
    return Promise.all(
      [...this.queues].map(async ([host, queue]) => {
        const counts = await queue.getJobCounts(...UNFINISHED);
        const jobs = present(await queue.getJobs([...UNFINISHED], 0, LOOKED_THROUGH - 1, true));
        jobs.sort((one, other) => one.timestamp - other.timestamp);
        const failed = jobs.find((job) => job.failedReason);
        return {
          host,
          waiting: Object.values(counts).reduce((sum, count) => sum + count, 0),
          ...(jobs[0] && { oldestChangedAt: new Date(jobs[0].data.changedAt) }),
          ...(failed && { lastError: failed.failedReason }),
        };
      }),
    );
  }

  /** The jobs that a host refused for ever. They stay until `redeliver`. */
  async deadLetters(): Promise<DeadLetter[]> {
    const lists = [...this.queues].map(async ([host, queue]) =>
      present(await queue.getFailed()).map((job) => ({
        host,
        id: job.id!,
        change: job.data,
        error: job.failedReason,
        failedAt: new Date(job.finishedOn!),
      })),
    );
    return (await Promise.all(lists)).flat();
  }

  /** Tries a dead letter again. */
  async redeliver(host: string, id: string): Promise<void> {
    const job = await this.queue(host).getJob(id);
    if (!job) throw new Error(`${host}: no job ${id}`);
    await job.retry('failed');
  }

  async close(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.close()));
    await Promise.all([...this.events.values()].map((events) => events.close()));
    await Promise.all([...this.queues.values()].map((queue) => queue.close()));
    await this.producer.close();
  }

  private queue(host: string): Queue<Change, Acknowledgement> {
    const queue = this.queues.get(host);
    if (!queue) {
      const advice = 'if it was taken out, repeat the change: the new receipt names the hosts of today';
      throw new Error(`${host} is none of the hosts; ${advice}`);
    }
    return queue;
  }

  private newWorker(host: string): Worker<Change, Acknowledgement> {
    const lockMs = 2 * this.callTimeoutMs;
    const worker = this.watched(
      new Worker<Change, Acknowledgement>(queueOf(host), (job) => this.attempt(host, job), {
        ...this.following(),
        concurrency: CONCURRENT_CALLS,
        // The job of a process that died is free after its lock's time and two checks.
        lockDuration: lockMs,
        stalledInterval: lockMs / 2,
        // However often processes die at the same job, it is delivered again.
        maxStalledCount: Number.MAX_SAFE_INTEGER,
        settings: { backoffStrategy: (attempts, _, error) => this.pause(attempts, error) },
      }),
    );
    worker.on('failed', (job, error) => {
      // The log must not name the person.
      if (job?.finishedOn) this.log.error(`dead letter ${job.id} for ${host}: ${error.message}`);
      else this.log.warn(`job ${job?.id} for ${host} will be tried again: ${error.message}`);
    });
    return worker;
  }

  private async attempt(host: string, job: ChangeJob): Promise<Acknowledgement> {
    try {
      return await this.deliver(host, job.data);
    } catch (error) {
      if (error instanceof CacheCallError && error.verdict === 'never') {
        throw new UnrecoverableError(error.message);
      }
      throw error;
    }
  }

  private pause(attempts: number, error: Error | undefined): number {
    const maxMs = this.options.maxBackoffMs ?? DEFAULT_MAX_BACKOFF_MS;
    if (error instanceof CacheCallError && error.verdict === 'slowly') return maxMs;
    const backoffMs = Math.min(maxMs, FIRST_BACKOFF_MS * 2 ** Math.min(attempts - 1, 20));
    // Full jitter on half of the wait; otherwise all jobs of a host come back together.
    return backoffMs / 2 + Math.random() * (backoffMs / 2);
  }

  private get callTimeoutMs(): number {
    return this.options.callTimeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
  }

  private following() {
    return { connection: { ...this.options.redis, maxRetriesPerRequest: null } };
  }

  /** ioredis reconnects by itself; without a listener its `error` event would end the process. */
  private watched<T extends { on(event: 'error', listener: (error: Error) => void): unknown }>(
    part: T,
  ): T {
    part.on('error', (error) => this.log.warn(`redis: ${error.message}`));
    return part;
  }
}

async function within<T>(ms: number, promise: Promise<T>, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    promise.catch(() => undefined); // it may still fail when nobody waits for it
  }
}

function queueOf(host: string): string {
  return `cachesvc-invalidate-${host}`;
}

/** BullMQ lists undefined for a job that ended while it was listed. */
function present<T>(jobs: (T | undefined)[]): T[] {
  return jobs.filter((job) => job !== undefined);
}
