package groundtruth

func init() { register(viewCase{view: "iomem", keys: []string{"kind", "start", "end", "name"}}) }
