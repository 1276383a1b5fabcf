export function TopView() { return <p class="note">…</p> }
