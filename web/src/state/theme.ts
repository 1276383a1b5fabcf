/** Light or dark: what the system says, until it is chosen here. */
import { signal } from '@preact/signals'

export type Theme = 'light' | 'dark'

const system = matchMedia('(prefers-color-scheme: dark)')

function stored(): Theme | null {
  try {
    const value = localStorage.getItem('theme')
    return value === 'light' || value === 'dark' ? value : null
  } catch {
    return null
  }
}

let chosen = stored()
export const theme = signal<Theme>(chosen ?? (system.matches ? 'dark' : 'light'))

system.addEventListener('change', () => {
  if (!chosen) theme.value = system.matches ? 'dark' : 'light'
})

export function toggleTheme(): void {
  chosen = theme.value === 'dark' ? 'light' : 'dark'
  document.documentElement.dataset.theme = chosen
  try {
    localStorage.setItem('theme', chosen)
  } catch {
    // Then for this page only.
  }
  theme.value = chosen
}
