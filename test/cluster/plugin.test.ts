import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Deployments } from '../support/cluster/deployments.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { closeModel, noLiveServer, startLiveServer } from '../support/live-server.ts';

describe('kubectl nvlm on a real control plane', { skip: noCluster(), timeout: 600_000 }, () => {
  let cluster: TestCluster;
  let deployments: Deployments;
  let folder: string;
  let environment: NodeJS.ProcessEnv;

  before(async () => {
    cluster = await startTestCluster();
    await cluster.startOperator();
    deployments = new Deployments(cluster.client);
    folder = mkdtempSync(join(tmpdir(), 'nvlm-plugin-'));
    // As a user installs it: one file of that name in the path, without the checkout's packages.
    const made = spawnSync(process.execPath, ['scripts/plugin.mjs', folder], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    symlinkSync(join(cluster.plane.programs, 'kubectl'), join(folder, 'kubectl'));
    const path = [folder, dirname(process.execPath), process.env.PATH].join(':');
    environment = { ...process.env, PATH: path, KUBECONFIG: cluster.plane.kubeconfig };
    await deployments.create('chat', { replicas: 2, autoscaling: { maxReplicas: 4 } });
    await deployments.untilReady('chat');
  });
  after(async () => {
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const nvlm = (...words: string[]) =>
    spawnSync('kubectl', ['nvlm', ...words], {
      env: environment,
      encoding: 'utf8',
      timeout: 60_000,
    });

  test('status draws a deployment with its revision, pods, children and events', () => {
    const { stdout, stderr, status } = nvlm('status', 'chat');
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^default\/chat {2}Ready \(AllReady\) {2}2\/2 ready/);
    assert.match(stdout, /├─ revision [0-9a-f]{10} \(current\) {2}2\/2 ready/);
    assert.equal(stdout.match(/─ chat-[0-9a-f]{10}-\w{5} {2}Running {2}on a100-/g)?.length, 2);
    assert.match(stdout, /HorizontalPodAutoscaler chat {2}wants \d, between 1 and 4/);
    assert.match(stdout, /events, newest first/);
    const seen = JSON.parse(nvlm('status', '-o', 'json').stdout) as { pods: unknown[] }[];
    assert.equal(seen[0]?.pods.length, 2);
    const missing = nvlm('status', 'chatt');
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /No NVLMDeployment chatt in namespace default; there are chat/);
  });

  test('a missing kubeconfig is told with what to do', () => {
    const { stderr, status } = nvlm('status', '--kubeconfig', join(folder, 'none'));
    assert.equal(status, 1);
    assert.match(stderr, /^KUBE_CONFIG_INVALID: .*none: ENOENT/);
  });

  test('plan tells what a manifest would change, by the rules of the cluster, and writes nothing', async () => {
    const file = join(folder, 'chat.yaml');
    const manifest = (name: string, tensor: number, replicas: number): string =>
      `apiVersion: serving.nvlm.dev/v1alpha1\nkind: NVLMDeployment\nmetadata: {name: ${name}}\nspec:\n  model: {source: "hf://nvidia/NVLM-D-72B", maxModelLength: 4096}\n  parallelism: {tensor: ${tensor}}\n  replicas: ${replicas}\n`;
    const before = await deployments.get('chat');
    writeFileSync(file, manifest('chat', 4, 2));
    const edited = nvlm('plan', '-f', file);
    assert.equal(edited.status, 0, edited.stderr);
    assert.match(
      edited.stdout,
      /~ NVLMDeployment default\/chat\n(.*\n)*? +spec\.parallelism\.tensor: 8 -> 4/,
    );
    assert.match(edited.stdout, /~ 2 pods roll out, revision [0-9a-f]{10} -> [0-9a-f]{10}/);
    assert.match(edited.stdout, /= Service chat/);
    writeFileSync(file, manifest('other', 8, 3));
    const created = nvlm('plan', '-f', file);
    assert.equal(created.status, 0, created.stderr);
    assert.match(created.stdout, /\+ NVLMDeployment default\/other\n(.*\n)*\+ Service other/);
    assert.match(created.stdout, /\+ 3 pods of revision/);
    writeFileSync(file, manifest('bad', 3, 1));
    const refused = nvlm('plan', '-f', file);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /tensor/);
    const { metadata } = await deployments.get('chat');
    assert.equal(metadata.generation, before.metadata.generation);
    assert.equal((await cluster.kubectl('get', 'nvlm', 'other')).code, 1);
  });

  test('chat talks with a real engine through the API server', { skip: noLiveServer }, async () => {
    await deployments.create('real', { replicas: 1 });
    await deployments.untilReady('real');
    await cluster.engines.leave('real');
    const [pod] = await deployments.pods('real');
    const server = await startLiveServer({ host: pod?.status?.podIP as string, port: 8000 });
    try {
      const terminal = spawn('kubectl', ['nvlm', 'chat', 'real'], { env: environment });
      let output = '';
      terminal.stdout.on('data', (chunk) => (output += chunk));
      terminal.stderr.on('data', (chunk) => (output += chunk));
      terminal.stdin.end('Say hello.\n');
      const code = await new Promise((resolve) => terminal.on('close', resolve));
      assert.equal(code, 0, output);
      assert.match(output, /\[\d+ tokens, .* tokens\/s/);
      assert.ok(server.log.some(({ route }) => route === 'ws /v1/responses'));
    } finally {
      await server.close();
      await closeModel();
    }
  });

  test('an unknown command or option is refused with the nearest right one', () => {
    assert.match(nvlm('statsu').stderr, /did you mean status/);
    assert.match(nvlm('status', '--namespcae', 'x').stderr, /did you mean --namespace/);
    assert.match(nvlm('--help').stdout, /Usage: kubectl nvlm COMMAND/);
  });
});
