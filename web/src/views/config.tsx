export function ConfigView() { return <p class="note">…</p> }
