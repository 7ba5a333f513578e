package groundtruth

func init() {
	register(viewCase{view: "kthreads", ignore: ofTeller})
}
