import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { KubeClient } from '#operator/kube/client.ts';
import {
  inspect,
  type ProviderOptions,
  register,
  registeredAuthorities,
  withdraw,
} from '#operator/metrics-api/provider.ts';
import { FakeKube, type FakeRequest, refuse } from '../../support/fake-kube/server.ts';

const services = '/apis/apiregistration.k8s.io/v1/apiservices';
const pathOf = (version: string): string => `${services}/${version}.custom.metrics.k8s.io`;
const rolePath = '/apis/rbac.authorization.k8s.io/v1/clusterroles/nvlm-operator';
const ours = { name: 'm', namespace: 'n', port: 443 };

describe('the registration of the metrics API', () => {
  let server: FakeKube;
  let client: KubeClient;
  let options: ProviderOptions;
  /** What was applied, in order. */
  const applied = (): {
    name: string;
    force: string | null;
    spec: Record<string, unknown>;
    owners: unknown;
  }[] =>
    server.requests
      .filter(({ verb }) => verb === 'patch')
      .map(({ query, body }) => {
        const { metadata, spec } = body as {
          metadata: { name: string; ownerReferences?: unknown };
          spec: Record<string, unknown>;
        };
        return {
          name: metadata.name,
          force: query.get('force'),
          spec,
          owners: metadata.ownerReferences,
        };
      });
  /** As server-side apply does where others' fields have owners, which what a test puts there has not. */
  const apply = ({ verb, path, query, body, response }: FakeRequest): boolean => {
    if (verb !== 'patch') return false;
    const before = found(path);
    const isOurs = before === undefined || before.spec.service?.name === 'm';
    if (!isOurs && query.get('force') !== 'true') refuse(response, 409, 'Conflict');
    else {
      const stored = server.put(path, body as object);
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(stored));
    }
    return true;
  };
  const found = (path: string) =>
    server.read(path) as unknown as { spec: { service?: { name: string } } } | undefined;
  const served = (version: string, service: object | undefined, status?: object): void => {
    server.put(pathOf(version), {
      spec: { ...(service && { service }) },
      ...(status && { status }),
    });
  };

  beforeEach(async () => {
    server = new FakeKube();
    client = await server.start();
    server.misbehave = apply;
    server.put(rolePath);
    options = {
      client,
      group: 'custom.metrics.k8s.io',
      versions: ['v1beta2', 'v1beta1'],
      service: ours,
      fieldManager: 'nvlm-operator',
      ownerRole: 'nvlm-operator',
    };
  });
  afterEach(() => server.stop());

  test('makes an APIService of each version where nobody has one, the newer preferred, owned by the installation', async () => {
    const state = await register(options, 'PEM');
    assert.equal(state.status, 'unreachable');
    assert.deepEqual(
      applied().map(({ name, spec }) => [name, spec.version, spec.versionPriority]),
      [
        ['v1beta2.custom.metrics.k8s.io', 'v1beta2', 200],
        ['v1beta1.custom.metrics.k8s.io', 'v1beta1', 100],
      ],
    );
    for (const { spec, owners } of applied()) {
      assert.deepEqual(spec.service, ours);
      assert.equal(Buffer.from(String(spec.caBundle), 'base64').toString(), 'PEM');
      assert.equal(spec.insecureSkipTLSVerify, undefined);
      assert.equal((owners as { uid: string }[])[0]?.uid, 'uid-1');
    }
  });

  test('writes nothing again while nothing changed, and new authorities into both', async () => {
    await register(options, 'PEM');
    await register(options, 'PEM');
    assert.equal(applied().length, 2);
    await register(options, 'NEW\nPEM');
    assert.equal(applied().length, 4);
    assert.deepEqual(await registeredAuthorities(options), ['NEW\nPEM', 'NEW\nPEM']);
  });

  test('leaves a foreign provider of either version alone, names it, and says what can be done', async () => {
    for (const version of ['v1beta1', 'v1beta2']) {
      server.remove(pathOf('v1beta1'));
      served(version, { name: 'prometheus-adapter', namespace: 'monitoring' });
      const state = await register(options, 'PEM');
      assert.equal(state.status, 'foreign');
      assert.match(state.message, new RegExp(`${version}.* Service monitoring/prometheus-adapter`));
      assert.match(state.message, /--metrics-api external/);
      assert.deepEqual(await inspect(options), state);
    }
    assert.deepEqual(applied(), []);
    assert.ok((await registeredAuthorities(options)).includes(''));
    served('v1beta2', undefined);
    assert.match((await inspect(options)).message, /the API server itself/);
  });

  test('does not take over what somebody else makes between the look and the write', async () => {
    server.misbehave = (request) => {
      if (request.verb === 'patch' && request.path === pathOf('v1beta2')) {
        served('v1beta2', { name: 'prometheus-adapter', namespace: 'monitoring' });
      }
      return apply(request);
    };
    await assert.rejects(register(options, 'PEM'), { status: 409 });
    assert.equal(found(pathOf('v1beta2'))?.spec.service?.name, 'prometheus-adapter');
    server.misbehave = apply;
    assert.equal((await register(options, 'PEM')).status, 'foreign');
  });

  test('takes its own back by force when somebody changed it', async () => {
    await register(options, 'PEM');
    served('v1beta2', ours);
    await register(options, 'PEM');
    assert.equal(applied().at(-1)?.force, 'true');
  });

  test('tells whether the API server reaches it, with its words', async () => {
    await register(options, 'PEM');
    const message = 'failing or missing response from https://10.0.0.1:443';
    const conditions = (status: string) => ({
      conditions: [{ type: 'Available', status, message }],
    });
    const caBundle = Buffer.from('PEM').toString('base64');
    for (const [status, wanted] of [
      ['False', 'unreachable'],
      ['True', 'served'],
    ] as const) {
      server.put(pathOf('v1beta2'), {
        spec: { service: ours, caBundle },
        status: conditions(status),
      });
      const state = await inspect(options);
      assert.equal(state.status, wanted);
      if (wanted === 'unreachable') assert.ok(state.message.includes(message));
    }
  });

  test('works where the role that would own it is missing or not to be read', async () => {
    server.remove(rolePath);
    await register(options, 'PEM');
    assert.equal(applied()[0]?.owners, undefined);
    server.misbehave = (request) => {
      if (request.path !== rolePath) return apply(request);
      refuse(request.response, 403, 'Forbidden');
      return true;
    };
    await register(options, 'PEM');
    assert.equal(applied().length, 2);
  });

  test('is taken away where it is ours, and left where it is not or has gone meanwhile', async () => {
    await register(options, 'PEM');
    served('v1beta1', { name: 'prometheus-adapter', namespace: 'monitoring' });
    await withdraw(options);
    assert.equal(found(pathOf('v1beta2')), undefined);
    assert.equal(found(pathOf('v1beta1'))?.spec.service?.name, 'prometheus-adapter');
    const [removed] = server.requests.filter(({ verb }) => verb === 'delete');
    const { preconditions } = (removed?.body ?? {}) as { preconditions?: { uid?: string } };
    assert.ok(preconditions?.uid, 'not one that was made anew');
    await withdraw(options);
    assert.equal(server.count('delete'), 1);
    served('v1beta2', ours);
    server.misbehave = (request) => {
      if (request.verb !== 'delete') return apply(request);
      refuse(request.response, 404, 'NotFound');
      return true;
    };
    await withdraw(options);
  });

  test('is no decision while the API server does not answer', async () => {
    server.misbehave = ({ response }) => {
      refuse(response, 503, 'ServiceUnavailable');
      return true;
    };
    await assert.rejects(register(options, 'PEM'), { status: 503 });
    await assert.rejects(inspect(options), { status: 503 });
  });
});
