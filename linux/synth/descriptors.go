package synth

// Open gives the process of the task at task a table of open files: struct files, 0 for
// a descriptor that is not open.
func (g *Guest) Open(task uint64, files ...uint64) {
	words := uint64(len(files)+63) / 64
	fds, open, cloexec := g.Alloc(8*uint64(len(files)), 8), g.Alloc(8*words, 8), g.Alloc(8*words, 8)
	for i, f := range files {
		g.Put64(fds+8*uint64(i), f)
		if f != 0 {
			word := open + uint64(i)/64*8
			g.Put64(word, g.word(word)|1<<(i%64))
		}
	}
	table, fdt := g.Object("files_struct"), g.Object("fdtable")
	g.Set(fdt, "fdtable", "max_fds", uint64(len(files)))
	g.Set(fdt, "fdtable", "fd", fds)
	g.Set(fdt, "fdtable", "open_fds", open)
	g.Set(fdt, "fdtable", "close_on_exec", cloexec)
	g.Set(table, "files_struct", "fdt", fdt)
	g.Set(task, "task_struct", "files", table)
}
