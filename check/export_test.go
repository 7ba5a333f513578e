package check

// Settled has h keep everything at the next look, and know nothing of what tasks had: for tests that do one thing
// after the other to a guest, and put it back by force.
func (h *History) Settled() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credentials = nil
	for _, k := range h.kept {
		k.mu.Lock()
		k.changes, k.wait = 0, 0
		k.mu.Unlock()
	}
}

// Keeps reports whether h keeps what a check concluded.
func (h *History) Keeps(id string) bool {
	k := h.keptAs("check " + id)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.value != nil
}
