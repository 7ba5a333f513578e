package synth

// AddModuleTypes puts a module's types on the kernel's list, as a struct btf that
// continues the kernel's: a blob of so many bytes, the last of which has number first-1
// and whose strings end at strings. It gives the address of the struct btf. Kernels of the
// old generation have no such list.
func (g *Guest) AddModuleTypes(module string, blob []byte, kernelSize, first, strings uint64) uint64 {
	head := g.Address("btf_modules")
	if g.word(head) == 0 {
		g.listInit(head)
	}
	data := g.Alloc(uint64(len(blob)), 8)
	g.Put(data, blob)
	base, b, m := g.Object("btf"), g.Object("btf"), g.Object("btf_module")
	g.Set(base, "btf", "data_size", kernelSize)
	g.Set(b, "btf", "data", data)
	g.Set(b, "btf", "data_size", uint64(len(blob)))
	g.Set(b, "btf", "id", 7)
	g.Set(b, "btf", "base_btf", base)
	g.Set(b, "btf", "start_id", first)
	g.Set(b, "btf", "start_str_off", strings)
	g.Put(b+g.Member("btf", "name"), append([]byte(module), 0))
	g.Set(m, "btf_module", "btf", b)
	g.listAdd(head, m+g.Member("btf_module", "list"))
	return b
}
