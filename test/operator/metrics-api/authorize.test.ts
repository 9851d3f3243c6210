import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Authorizer } from '#operator/metrics-api/authorize.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeKube, refuse } from '../../support/fake-kube/server.ts';

const jane = { name: 'jane', uid: '42', groups: ['dev'], extra: { scopes: ['a'] } };
const access = {
  group: 'custom.metrics.k8s.io',
  version: 'v1beta2',
  namespace: 'ns',
  resource: 'pods',
  name: '*',
  subresource: 'queue_depth',
};

describe('who may read a metric', () => {
  let server: FakeKube;
  let clock: FakeClock;
  let authorizer: Authorizer;
  let status: object;

  beforeEach(async () => {
    server = new FakeKube();
    clock = new FakeClock();
    status = { allowed: true };
    server.misbehave = ({ response }) => {
      response.writeHead(201, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ status }));
      return true;
    };
    authorizer = new Authorizer({ client: await server.start(), clock });
  });
  afterEach(() => server.stop());

  test('is what the API server says of that user and that object', async () => {
    assert.equal(await authorizer.isAllowed(jane, access), true);
    const [{ path, body } = {}] = server.requests;
    assert.equal(path, '/apis/authorization.k8s.io/v1/subjectaccessreviews');
    assert.deepEqual((body as { spec: object }).spec, {
      user: 'jane',
      uid: '42',
      groups: ['dev'],
      extra: { scopes: ['a'] },
      resourceAttributes: { ...access, verb: 'get' },
    });
  });

  test('is no for everything but a clear yes', async () => {
    for (const [i, answer] of [
      { allowed: false },
      {},
      { allowed: 'true' },
      { denied: true },
    ].entries()) {
      status = answer;
      assert.equal(await authorizer.isAllowed({ ...jane, name: `user ${i}` }, access), false);
    }
  });

  test('is remembered for ten seconds when it is yes, for five when it is no', async () => {
    await authorizer.isAllowed(jane, access);
    clock.advance(9999);
    await authorizer.isAllowed(jane, access);
    assert.equal(server.requests.length, 1);
    clock.advance(1);
    status = { allowed: false };
    assert.equal(await authorizer.isAllowed(jane, access), false);
    assert.equal(server.requests.length, 2);
    clock.advance(4999);
    assert.equal(await authorizer.isAllowed(jane, access), false);
    assert.equal(server.requests.length, 2);
    clock.advance(1);
    status = { allowed: true };
    assert.equal(await authorizer.isAllowed(jane, access), true);
  });

  test('is not remembered for another object, group, or extra of the same name', async () => {
    await authorizer.isAllowed(jane, access);
    for (const [user, of] of [
      [jane, { ...access, namespace: 'other' }],
      [jane, { ...access, resource: 'nodes' }],
      [{ ...jane, groups: ['dev', 'more'] }, access],
      [{ ...jane, extra: {} }, access],
      [{ ...jane, uid: '43' }, access],
    ] as const) {
      const before = server.requests.length;
      await authorizer.isAllowed(user, of);
      assert.equal(server.requests.length, before + 1);
    }
  });

  test('is not remembered when the API server did not answer', async () => {
    const answer = server.misbehave;
    server.misbehave = ({ response }) => {
      refuse(response, 500, 'InternalError');
      return true;
    };
    await assert.rejects(authorizer.isAllowed(jane, access), { status: 500 });
    server.misbehave = answer;
    assert.equal(await authorizer.isAllowed(jane, access), true);
  });

  test('is not asked for the group of masters: the API server’s aggregator is of it', async () => {
    assert.equal(await authorizer.isAllowed({ ...jane, groups: ['system:masters'] }, access), true);
    assert.equal(server.requests.length, 0);
  });

  test('remembers no more than its bound, however many ask', async () => {
    for (let i = 0; i < 2100; i++) await authorizer.isAllowed({ ...jane, name: `u${i}` }, access);
    assert.equal(server.requests.length, 2100);
    await authorizer.isAllowed({ ...jane, name: 'u2099' }, access);
    assert.equal(server.requests.length, 2100);
  });
});
