import { kubeContract } from '../../support/fake-kube/contract.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

kubeContract('the fake API server', false, async () => {
  const server = new FakeKube();
  return { client: await server.start(), stop: () => server.stop() };
});
