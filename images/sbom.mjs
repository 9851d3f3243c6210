/** Bills of materials in CycloneDX 1.6, without times or random numbers: the same image has the same bill. */

const licenses = (license) => {
  if (license === undefined) return {};
  const isExpression = / (OR|AND|WITH) /.test(license);
  return { licenses: [isExpression ? { expression: license } : { license: { id: license } }] };
};

const purlName = (name) => name.replace('@', '%40');

const npmComponent = ({ name, version, license, integrity }) => {
  const [algorithm, digest] = integrity?.split('-', 2) ?? [];
  const purl = `pkg:npm/${purlName(name)}@${version}`;
  return {
    type: 'library',
    'bom-ref': purl,
    name,
    version,
    ...licenses(license),
    ...(algorithm === 'sha512' && {
      hashes: [{ alg: 'SHA-512', content: Buffer.from(digest, 'base64').toString('hex') }],
    }),
    purl,
  };
};

const libraryComponent = ({ path, sha256, package: owner, version }) => ({
  type: 'library',
  'bom-ref': `file:${path}`,
  name: owner ?? path.slice(path.lastIndexOf('/') + 1),
  ...(version && { version, purl: `pkg:deb/debian/${owner}@${encodeURIComponent(version)}` }),
  hashes: [{ alg: 'SHA-256', content: sha256 }],
  evidence: { occurrences: [{ location: path }] },
});

/** @returns {string} JSON. */
export function billOfMaterials({ name, version, nodeVersion, packages, libraries }) {
  // One package may be installed at several places.
  const npm = new Map(packages.map((one) => [`${one.name}@${one.version}`, npmComponent(one)]));
  const bill = {
    $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      component: { type: 'container', 'bom-ref': name, name, version, ...licenses('Apache-2.0') },
    },
    components: [
      {
        type: 'application',
        'bom-ref': 'node',
        name: 'node',
        version: nodeVersion,
        ...licenses('MIT'),
        purl: `pkg:generic/node@${nodeVersion}`,
      },
      ...npm.values(),
      ...libraries.map(libraryComponent),
    ],
  };
  return `${JSON.stringify(bill, null, 2)}\n`;
}
