module sunup.dev/cluster/small

go 1.26.0
