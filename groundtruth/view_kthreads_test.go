package groundtruth

func init() {
	register(viewCase{view: "kthreads", keys: []string{"pid"}, ignore: ofTeller})
}
