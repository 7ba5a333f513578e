package groundtruth

func init() {
	register(viewCase{view: "signals", ignore: ofTeller})
	register(viewCase{view: "signal_handlers", keys: []string{"pid", "name"}, ignore: ofTeller})
	register(viewCase{view: "ptrace"})
	register(viewCase{view: "ipcs"})
	register(viewCase{view: "locks", keys: []string{"device", "inode", "kind", "blocked"}})
	// Of an emulated guest the timer's and the disk's interrupts go on coming.
	register(viewCase{view: "interrupts", keys: []string{"kind", "number", "name"}, near: map[string]float64{"count": 20000}})
	register(viewCase{view: "devices", keys: []string{"kind", "major", "name"}})
}
