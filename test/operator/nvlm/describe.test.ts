import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import {
  describeAttempt,
  describeJob,
  describeJobName,
  nextAttempt,
} from '#charts/describe-job.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '#operator/kube/resource.ts';
import { type Described, type Description, whatIsDescribed } from '#operator/nvlm/describe.ts';
import { judgeFeasibility } from '#operator/nvlm/feasibility.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { engineProps, nvlmSpec } from '../../support/deployment-spec.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const config: unknown = JSON.parse(readFileSync('examples/nvlm-d-72b/config.json', 'utf8'));
const weightBytes = 158_759_186_688;
const answer = JSON.stringify({ config, weightBytes });
const deployment = (
  spec: Parameters<typeof nvlmSpec>[0] = {},
  status: object = {},
): NVLMDeployment =>
  ({
    apiVersion: 'serving.nvlm.dev/v1alpha1',
    kind: 'NVLMDeployment',
    metadata: { name: 'chat', namespace: 'team', uid: 'u-1' },
    spec: nvlmSpec(spec),
    status,
  }) as unknown as NVLMDeployment;
const propsOf = ({ spec }: NVLMDeployment, more: Partial<EngineProps> = {}): EngineProps => ({
  ...engineProps(spec),
  ...more,
});
const one = deployment();
const name = describeJobName(propsOf(one));
const ended = (message: string | undefined, exitCode = 0, jobName = name): PodObject =>
  ({
    metadata: { labels: { 'job-name': jobName } },
    status: {
      containerStatuses: [{ name: 'describe', state: { terminated: { exitCode, message } } }],
    },
  }) as unknown as PodObject;
const held = (reason: string, message: string, jobName = name): PodObject =>
  ({
    metadata: { name: 'd', namespace: 'team', labels: { 'job-name': jobName } },
    spec: {},
    status: { containerStatuses: [{ name: 'describe', state: { waiting: { reason, message } } }] },
  }) as unknown as PodObject;

describe('what is known of a model', () => {
  const now = new Date('2026-11-24T10:00:00Z');
  const job = (ageSeconds: number): KubeObject =>
    ({
      metadata: {
        name,
        creationTimestamp: new Date(now.getTime() - ageSeconds * 1000).toISOString(),
      },
    }) as unknown as KubeObject;
  const look = (subject: NVLMDeployment, pods: PodObject[], made = [job(1)]): Described =>
    whatIsDescribed(subject, propsOf(subject), made, pods, now, 60_000).described;

  test('the answer of the Job, and from then on the status', () => {
    const ofJob = { state: 'known', of: name, isRemembered: false, config, weightBytes };
    assert.deepEqual(look(one, [ended(answer)]), ofJob);
    const able = JSON.stringify({ config, weightBytes, features: ['pipeline-over-pods', 7, 'Ä'] });
    const told = look(one, [ended(able)]);
    assert.deepEqual(told.state === 'known' && told.features, ['pipeline-over-pods']);
    const status = { model: { of: name, config: JSON.stringify(config), weightBytes } };
    assert.deepEqual(look(deployment({}, status), []), { ...ofJob, isRemembered: true });
    const edited = deployment({ model: { ...one.spec.model, source: 'hf://other/model' } }, status);
    assert.equal(look(edited, []).state, 'waiting', 'another source is another model');
  });

  test('no answer is waited for, but not for ever; a refusal is told; nonsense is no answer', () => {
    assert.equal(look(one, [], []).state, 'waiting');
    assert.equal(look(one, []).state, 'waiting');
    assert.equal(look(one, [], [job(61)]).state, 'unknown');
    const refused = look(one, [ended('{"error":"DOWNLOAD_FAILED: no route"}', 1)]);
    assert.match(refused.state === 'unknown' ? refused.why : '', /DOWNLOAD_FAILED: no route/);
    assert.equal(look(one, [ended('<html>')]).state, 'unknown');
    assert.equal(look(one, [ended(undefined)]).state, 'unknown');
    assert.equal(look(one, [ended(answer, 0, 'older')]).state, 'waiting');
  });

  test('a Job whose Secret is missing is waited for as long as it takes, and the Secret is named', () => {
    const noSecret = held('CreateContainerConfigError', 'secret "hub" not found');
    const described = look(one, [noSecret], [job(86_400)]);
    assert.ok(described.state === 'waiting');
    assert.equal(described.problem?.reason, 'SecretMissing');
    assert.equal(described.lookAgainMs, undefined, 'its pod tells when it is there');
    const { spec } = describeJob(propsOf(one)) as unknown as { spec: object };
    assert.ok(!('activeDeadlineSeconds' in spec), 'a deadline would end the pod that waits');
    const noImage = held('ImagePullBackOff', 'x');
    const waiting = look(one, [noImage], [job(1)]);
    assert.equal(waiting.state === 'waiting' && waiting.problem?.reason, 'ImagePull');
    assert.equal(look(one, [noImage], [job(61)]).state, 'unknown', 'an image is no Secret');
  });

  test('another image, Secret or model is another Job, and its pod has no rights and no GPU', () => {
    const { spec } = one;
    const names = [
      propsOf(one),
      propsOf(one, { image: 'nvlm-engine:2' }),
      propsOf(deployment({ model: { ...spec.model, secretRef: { name: 'hub' } } })),
      propsOf(deployment({ model: { ...spec.model, revision: 'v2' } })),
    ].map((props) => describeJobName(props));
    assert.equal(new Set(names).size, 4);
    const text = JSON.stringify(describeJob(propsOf(one)));
    assert.match(text, /"automountServiceAccountToken":false/);
    assert.match(text, /"readOnlyRootFilesystem":true/);
    assert.doesNotMatch(text, /"nvidia.com\/gpu":/);
  });
});

/** A cluster in which only Jobs and their pods happen; whoever looks at it knows nothing but what is in it. */
class JobWorld {
  readonly clock = new FakeClock();
  readonly #start = Date.parse('2026-11-24T10:00:00Z');
  jobs: KubeObject[] = [];
  pods: PodObject[] = [];
  subject = one;

  now(): Date {
    return new Date(this.#start + this.clock.now());
  }

  look(): Description {
    return whatIsDescribed(
      this.subject,
      propsOf(this.subject),
      this.jobs,
      this.pods,
      this.now(),
      60_000,
    );
  }

  /** Makes and removes Jobs until what is there is what should be; answers the names that were made. */
  settle(): string[] {
    const made: string[] = [];
    for (;;) {
      const wanted = this.look().attempts.map((attempt) =>
        describeJob(propsOf(this.subject), attempt),
      );
      const names = new Set(wanted.map(({ metadata }) => metadata.name));
      const there = new Set(this.jobs.map(({ metadata }) => metadata.name));
      const missing = wanted.filter(({ metadata }) => !there.has(metadata.name));
      const surplus = [...there].filter((one) => !names.has(one));
      if (missing.length + surplus.length === 0) return made;
      for (const { metadata, ...rest } of missing) {
        made.push(metadata.name);
        const creationTimestamp = this.now().toISOString();
        this.jobs.push({ ...rest, metadata: { ...metadata, creationTimestamp } });
      }
      this.jobs = this.jobs.filter(({ metadata }) => !surplus.includes(metadata.name));
      this.pods = this.pods.filter(
        ({ metadata }) => !surplus.includes(metadata.labels?.['job-name'] ?? ''),
      );
    }
  }

  /** The newest Job ends as the Job controller says it. */
  end(message: string | undefined, exitCode: number): void {
    const job = this.jobs.at(-1);
    assert.ok(job);
    if (message !== undefined) this.pods.push(ended(message, exitCode, job.metadata.name));
    const condition = {
      type: exitCode === 0 ? 'Complete' : 'Failed',
      status: 'True',
      message: 'Job has reached the specified backoff limit',
      lastTransitionTime: this.now().toISOString(),
    };
    this.jobs = [...this.jobs.slice(0, -1), { ...job, status: { conditions: [condition] } }];
  }

  why(): string {
    const { described } = this.look();
    assert.equal(described.state, 'unknown');
    return described.state === 'unknown' ? described.why : '';
  }
}

describe('a description that failed', () => {
  const refusal = '{"error":"DOWNLOAD_FAILED: no route"}';

  test('is tried again by another Job after 1, 2, 4, 8, 16 and then always 30 minutes', () => {
    const world = new JobWorld();
    assert.deepEqual(world.settle(), [name]);
    for (const [i, minutes] of [1, 2, 4, 8, 16, 30, 30, 30].entries()) {
      world.end(refusal, 1);
      assert.deepEqual(world.settle(), [], 'nothing is written while it waits');
      const at = new Date(world.now().getTime() + minutes * 60_000).toISOString().slice(0, 19);
      assert.match(
        world.why(),
        new RegExp(`DOWNLOAD_FAILED: no route; it is tried again at ${at}Z`),
      );
      const { described } = world.look();
      assert.equal(described.state === 'unknown' && described.lookAgainMs, minutes * 60_000);
      world.clock.advance(minutes * 60_000 - 1);
      assert.deepEqual(world.settle(), []);
      world.clock.advance(1);
      assert.deepEqual(world.settle(), [`${name}-${i + 2}`]);
      assert.equal(world.jobs.length, 2, 'what failed is told as long as the next has not ended');
    }
  });

  test('starts what waited for it, and never holds it up again', () => {
    const world = new JobWorld();
    world.subject = deployment({ parallelism: { tensor: 8, pipeline: 2 } });
    const isWaiting = (): boolean =>
      judgeFeasibility(world.subject, world.look().described).isWaiting;
    world.settle();
    assert.equal(isWaiting(), true);
    world.end(JSON.stringify({ error: 'DOWNLOAD_FAILED', features: ['pipeline-over-pods'] }), 1);
    for (let again = 0; again < 3; again++) {
      assert.equal(isWaiting(), false, 'the engine said that it can');
      world.clock.advance(30 * 60_000);
      assert.equal(world.settle().length, 1);
      assert.equal(isWaiting(), false, 'it still can while the model is read again');
      assert.match(world.why(), /DOWNLOAD_FAILED; Job \S+ tries again$/);
      world.end(JSON.stringify({ error: 'DOWNLOAD_FAILED', features: ['pipeline-over-pods'] }), 1);
      assert.equal(world.settle().length, 0);
      assert.equal(world.jobs.length, 1);
    }
  });

  test('that succeeds is remembered, and no Job is left', () => {
    const world = new JobWorld();
    world.settle();
    world.end(refusal, 1);
    world.clock.advance(60_000);
    world.settle();
    world.end(answer, 0);
    assert.deepEqual(world.settle(), [], 'its pod is kept until the status has the answer');
    const { described } = world.look();
    assert.ok(described.state === 'known');
    assert.equal(described.of, name, 'the same description, whichever attempt told it');
    const { model } = judgeFeasibility(one, described);
    world.subject = deployment({}, { model });
    assert.deepEqual(world.settle(), []);
    assert.deepEqual(world.jobs, []);
  });

  test('is tried again also when its pods are gone, and tells what holds up the next', () => {
    const world = new JobWorld();
    world.settle();
    world.end(undefined, 1);
    assert.match(world.why(), /backoff limit; it is tried again at/);
    world.clock.advance(60_000);
    world.settle();
    const second = `${name}-2`;
    world.pods.push(held('CreateContainerConfigError', 'secret "hub" not found', second));
    assert.match(world.why(), /-2 tries again, and waits: .*hub/);
    world.jobs.shift();
    assert.match(world.why(), /^Job \S+-2 tries again/, 'somebody deleted the one before');
    assert.deepEqual(world.settle(), []);
  });

  test('is not tried again when the image answers something else; it is when a good answer was lost', () => {
    const world = new JobWorld();
    world.settle();
    world.end('hello', 0);
    world.clock.advance(86_400_000);
    assert.deepEqual(world.settle(), []);
    assert.match(world.why(), /hello$/);
    world.pods = [];
    assert.deepEqual(world.settle(), [`${name}-2`]);
  });

  test('is read at once when its Job is deleted', () => {
    const world = new JobWorld();
    world.settle();
    world.end(refusal, 1);
    world.jobs = [];
    world.pods = [];
    assert.deepEqual(world.settle(), [name]);
  });
});

test('names of attempts stay within 63 characters, and one of another description is none', () => {
  const longest = describeJobName(propsOf(one, { name: 'n'.repeat(40) }), 9999);
  assert.ok(longest.length <= 63);
  assert.deepEqual(
    [name, `${name}-2`, `${name}-x`, `${name}0-2`, 'chat-describe-00000000-2'].map((one) =>
      describeAttempt(name, one),
    ),
    [1, 2, undefined, undefined, undefined],
  );
  assert.deepEqual([1, 2, 9999].map(nextAttempt), [2, 3, 2]);
});
