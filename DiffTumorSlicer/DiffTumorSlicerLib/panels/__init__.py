"""The module's panels: Qt, and nothing that the session or the scene could do without it.

panels = Panels(widget, session, scene=scene, ui_folder=folder)
panels.set_parameter_node(parameters)          # again after a scene was closed or loaded
panels.enter(); panels.exit(); panels.cleanup()
"""

from DiffTumorSlicerLib.panels.container import Panels

__all__ = ["Panels"]
