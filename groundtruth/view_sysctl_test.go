package groundtruth

func init() { register(viewCase{view: "sysctl", keys: []string{"name"}, subset: true}) }
