package check

// ForgetCredentials has h know nothing of what tasks had: for tests that put credentials back by force.
func (h *History) ForgetCredentials() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credentials = nil
}
