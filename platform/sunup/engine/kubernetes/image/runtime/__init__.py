"""The image that worker pods run, made of Debian packages, wheels and Sunup."""
