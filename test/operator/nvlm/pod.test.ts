import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { REASONS } from '#crds/conditions.ts';
import { findProblem, type PodObject } from '#operator/nvlm/pod.ts';

type Status = NonNullable<PodObject['status']>;
type Container = NonNullable<Status['containerStatuses']>[number];
const pod = (status: Status): PodObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'chat-0', namespace: 'ns' },
  spec: {
    containers: [
      {
        name: 'engine',
        env: [
          {
            name: 'NVLM_HF_TOKEN',
            valueFrom: { secretKeyRef: { name: 'hf-token', key: 'token' } },
          },
        ],
      },
    ],
    volumes: [
      {
        name: 'api-keys',
        secret: { secretName: 'keys', optional: true, items: [{ key: 'mine', path: 'mine' }] },
      },
    ],
  },
  status,
});
const container = (more: Partial<Container>): PodObject =>
  pod({ phase: 'Pending', containerStatuses: [{ name: 'engine', ready: false, ...more }] });
/** An engine that ends with `message`, its model cache in `volume`. */
const endsWithCache = (volume: object, message: string): PodObject => {
  const ended = container({ state: { terminated: { exitCode: 1, message } } });
  const spec = {
    nodeName: 'a100-3',
    securityContext: { runAsUser: 65532, runAsGroup: 65532 },
    volumes: [{ name: 'models', ...volume }],
  };
  return { ...ended, spec };
};
const refused = (what: string): string =>
  `Load x\nCACHE_UNUSABLE: /models/${what}: cannot be used (EACCES: permission denied, mkdir)`;
const waiting = (reason: string, message = ''): PodObject =>
  container({ state: { waiting: { reason, message } } });

/** What kubelets and schedulers report, in their words. */
const table: readonly (readonly [of: PodObject, reason: string | undefined, told: RegExp])[] = [
  [
    pod({
      conditions: [
        {
          type: 'PodScheduled',
          status: 'False',
          message: '0/3 nodes: 3 Insufficient nvidia.com/gpu.',
        },
      ],
    }),
    'Unschedulable',
    /Insufficient nvidia.*spec\.parallelism\.tensor/,
  ],
  [waiting('ImagePullBackOff', 'not found'), 'ImagePull', /not found.*pull secrets/],
  [waiting('ErrImagePull'), 'ImagePull', /no message|ErrImagePull/],
  [
    waiting('CreateContainerConfigError', 'secret "hf-token" not found'),
    'SecretMissing',
    /secret "hf-token" not found.*Secret hf-token in namespace ns .*the key token.*spec\.model\.secretRef/,
  ],
  [
    waiting('CreateContainerConfigError', "couldn't find key token in Secret ns/hf-token"),
    'SecretMissing',
    /key token in Secret ns\/hf-token.*Create Secret hf-token .*the key token/,
  ],
  [
    container({
      state: { terminated: { exitCode: 1, message: 'API_KEYS_MISSING: /x cannot be read' } },
    }),
    'SecretMissing',
    /Secret keys does not exist, or has no API key under mine.*spec\.auth\.apiKeysSecretRef/,
  ],
  [
    container({
      restartCount: 4,
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { exitCode: 1, message: 'DOWNLOAD_TOKEN_EMPTY: the token' } },
    }),
    'SecretMissing',
    /Secret hf-token is empty.*under the key token.*spec\.model\.secretRef/,
  ],
  [
    container({
      restartCount: 1,
      state: { running: {} },
      lastState: { terminated: { exitCode: 1, message: 'API_KEYS_MISSING: /x' } },
    }),
    undefined,
    /./,
  ],
  [
    endsWithCache({ hostPath: { path: '/var/lib/models' } }, refused('one')),
    'CacheUnusable',
    /user 65532 may not write to \/var\/lib\/models of node a100-3.* chown -R 65532:65532 \/var\/lib\/models .*EACCES/,
  ],
  [
    endsWithCache({ hostPath: { path: "/mnt/it's; rm" } }, refused('two')),
    'CacheUnusable',
    /chown -R 65532:65532 '\/mnt\/it'\\''s; rm' /,
  ],
  [
    endsWithCache({ persistentVolumeClaim: { claimName: 'nfs' } }, refused('three')),
    'CacheUnusable',
    /may not write to claim nfs.*spec\.model\.cache\.pvc/,
  ],
  [
    endsWithCache({ hostPath: { path: '/m' } }, 'CACHE_DISK_FULL: no room (ENOSPC)'),
    undefined,
    /./,
  ],
  [endsWithCache({ emptyDir: {} }, refused('emptied')), undefined, /./],
  [
    waiting('CreateContainerConfigError', 'configmap "x" not found'),
    'InvalidTemplate',
    /configmap "x" not found/,
  ],
  [
    container({
      restartCount: 2,
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { reason: 'OOMKilled', exitCode: 137 } },
    }),
    'OutOfMemory',
    /2 times.*maxSequences/,
  ],
  [
    container({
      restartCount: 4,
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { exitCode: 1, message: 'PORT_IN_USE: x' } },
    }),
    'CrashLoop',
    /PORT_IN_USE.*kubectl logs chat-0 --previous/,
  ],
  [
    pod({ phase: 'Failed', reason: 'Evicted', message: 'low on memory' }),
    'CrashLoop',
    /Evicted low on memory/,
  ],
  [waiting('ContainerCreating'), undefined, /./],
  [container({ restartCount: 1, state: { running: {} } }), undefined, /./],
  [pod({ conditions: [{ type: 'Ready', status: 'True' }] }), undefined, /./],
];

for (const [of, reason, told] of table) {
  const { containerStatuses: [{ state } = {}] = [], ...status } = of.status as Status;
  test(`${JSON.stringify(state ?? status)} is ${reason ?? 'no trouble'}`, () => {
    const problem = findProblem(of);
    assert.equal(problem?.reason, reason);
    if (problem !== undefined) assert.match(problem.message, told);
  });
}

test('a pod that is being deleted is in no trouble', () => {
  const going = waiting('ImagePullBackOff');
  const metadata = { ...going.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' };
  assert.equal(findProblem({ ...going, metadata }), undefined);
});

test('the codes that tell of a Secret or a cache are codes of the engine', () => {
  const text = ['pod-secrets', 'pod-cache']
    .map((name) => readFileSync(`operator/nvlm/${name}.ts`, 'utf8'))
    .join('');
  const others = ['API_KEYS_VOLUME', 'CACHE_VOLUME', 'NVLM_HF_TOKEN'];
  const codes = [...text.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)]
    .map(([code]) => code)
    .filter((code) => !others.includes(code));
  const errors = readFileSync('docs/errors.md', 'utf8');
  assert.ok(codes.length >= 3);
  for (const code of codes) assert.ok(errors.includes(`| \`${code}\` |`), code);
});

test('every reason of the catalogue is one that the operator gives', () => {
  const code = globSync('operator/nvlm/*.ts')
    .map((file) => readFileSync(file, 'utf8'))
    .join('');
  const unused = Object.keys(REASONS).filter((reason) => !code.includes(`'${reason}'`));
  assert.deepEqual(unused, []);
});
