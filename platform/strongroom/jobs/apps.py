"""Django's handle on this room; tells the data sets what reads them."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "strongroom.jobs"
    label = "jobs"

    def ready(self) -> None:
        from strongroom.datasets import services as datasets
        from strongroom.jobs import services as jobs

        datasets.on_use(jobs.reads)
