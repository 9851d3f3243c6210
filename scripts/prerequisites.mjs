import { spawnSync } from 'node:child_process';

const works = (command, args = ['--version']) => {
  const result = spawnSync(command, args, { stdio: 'ignore' });
  return result.status === 0;
};

/** First C++ compiler found, by CXX, then the usual names. */
export const findCompiler = () =>
  [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean).find((name) => works(name));

/** Names everything that is missing in one message, or returns undefined. */
export function missingTools() {
  const missing = [];
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major < 20) missing.push(`Node.js 20 or later (this is ${process.versions.node})`);
  if (!works('npm')) missing.push('npm');
  if (!findCompiler()) missing.push('a C++20 compiler (g++ 11 or later, or clang++ 14 or later)');
  if (!works('cmake')) missing.push('CMake 3.24 or later');
  if (missing.length === 0) return undefined;
  return `Missing on this machine:\n${missing.map((tool) => `  - ${tool}`).join('\n')}\nOn Debian or Ubuntu: apt-get install -y g++ cmake ninja-build`;
}
