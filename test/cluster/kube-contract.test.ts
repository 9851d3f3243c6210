import { startControlPlane } from '../../scripts/cluster/control-plane.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { kubeContract } from '../support/fake-kube/contract.ts';

kubeContract('a real API server', noCluster(), async () => {
  const plane = await startControlPlane({ apiServerOnly: true });
  return { client: plane.client, stop: () => plane.stop() };
});
