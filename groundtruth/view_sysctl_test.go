package groundtruth

func init() { register(viewCase{view: "sysctl", subset: true}) }
