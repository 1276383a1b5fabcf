import { defineConfig } from 'vitest/config'

// One browser and one set of agents for all that is looked at; in order, as the last thing seen is an agent's end.
export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ['*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
    sequence: { concurrent: false },
  },
})
